package freezer

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// patience is the time limit of every wait. Only a failing wait comes near it.
const patience = 20 * time.Second

// child is a process of the test. It answers each line, while it runs.
type child struct {
	pid   int
	stdin io.WriteCloser
	lines chan string
}

// newChild starts a child, which ends with the test.
func newChild(t *testing.T) *child {
	t.Helper()
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{pid: cmd.Process.Pid, stdin: stdin, lines: make(chan string, 16)}
	read := make(chan struct{})
	go func() { // ends with the child
		defer close(read)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			c.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-read
		cmd.Wait()
	})
	c.ask(t)
	return c
}

// ask gives the child a line, and fails if it does not answer.
func (c *child) ask(t *testing.T) {
	t.Helper()
	fmt.Fprintln(c.stdin, "line")
	c.answers(t)
}

func (c *child) answers(t *testing.T) {
	t.Helper()
	select {
	case <-c.lines:
	case <-time.After(patience):
		t.Fatalf("process %d does not run", c.pid)
	}
}

// keepsSilent gives the child a line, and fails if it answers.
func (c *child) keepsSilent(t *testing.T) {
	t.Helper()
	fmt.Fprintln(c.stdin, "line")
	select {
	case <-c.lines:
		t.Errorf("process %d runs", c.pid)
	case <-time.After(50 * time.Millisecond): // a process that runs answers in less
	}
}

// tree is a hierarchy of control groups of version 2 that is the test's own.
type tree struct {
	t   *testing.T
	dir string
}

func newTree(t *testing.T) tree {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		mount, kind, _ := strings.Cut(line, " - ")
		f := strings.Fields(mount)
		if !strings.HasPrefix(kind, "cgroup2 ") || f[3] != "/" {
			continue
		}
		dir, err := os.MkdirTemp(f[4], "banger-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { remove(t, dir) })
		return tree{t, dir}
	}
	t.Fatal("this machine has no control groups of version 2: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
	panic("not reached")
}

// remove removes a group and those below it, whose processes have ended.
func remove(t *testing.T, dir string) {
	children, _ := filepath.Glob(dir + "/*/cgroup.procs")
	for _, c := range children {
		remove(t, filepath.Dir(c))
	}
	if err := unix.Rmdir(dir); err != nil {
		t.Errorf("removing a test's group: %v", err)
	}
}

// group makes a group with processes.
func (h tree) group(name string, members ...*child) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Join(h.dir, name), 0o755); err != nil {
		h.t.Fatal(err)
	}
	for _, m := range members {
		h.write(name+"/cgroup.procs", fmt.Sprint(m.pid))
	}
}

func (h tree) write(name, value string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), []byte(value), 0); err != nil {
		h.t.Fatal(err)
	}
}

func (h tree) read(name string) string {
	h.t.Helper()
	data, err := os.ReadFile(filepath.Join(h.dir, name))
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// freezer returns a freezer of the tree, in which a child stands for the agent.
func (h tree) freezer(agent *child, home string) *Freezer {
	h.t.Helper()
	root, err := os.OpenRoot(h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { root.Close() })
	return &Freezer{groups: &groups{root: root, self: agent.pid, home: func(int) (string, error) { return home, nil }}}
}

func (h tree) groups() (names []string) {
	list, _ := filepath.Glob(h.dir + "/*/cgroup.procs")
	for _, l := range list {
		names = append(names, filepath.Base(filepath.Dir(l)))
	}
	return names
}

// TestGroupsAreFrozen: the agent of an image without an init of its own is in the root group, with whatever is there.
func TestGroupsAreFrozen(t *testing.T) {
	needRoot(t)
	h := newTree(t)
	agent, beside, command, users := newChild(t), newChild(t), newChild(t), newChild(t)
	h.group(".", agent, beside)
	h.group("banger/exec", command)
	h.group("users", users)
	f := h.freezer(agent, "")
	for range 2 { // it can be done again
		if err := f.Freeze(patience); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*child{beside, command, users} {
			c.keepsSilent(t)
		}
		agent.ask(t)
		f.Thaw()
		for _, c := range []*child{beside, command, users} {
			c.answers(t)
		}
		if got := h.groups(); !slices.Equal(got, []string{"banger", "users"}) {
			t.Errorf("there are the groups %q", got)
		}
		if got := strings.Fields(h.read("cgroup.procs")); len(got) != 2 {
			t.Errorf("in the root are the processes %q", got)
		}
	}
}

// TestAnInitIsFrozen: beside an image's own init, the agent shares a group with PID 1.
func TestAnInitIsFrozen(t *testing.T) {
	needRoot(t)
	h := newTree(t)
	agent, init, service := newChild(t), newChild(t), newChild(t)
	h.group("init.scope", agent, init)
	h.group("system.slice/one.service", service)
	f := h.freezer(agent, "init.scope")
	if err := f.Freeze(patience); err != nil {
		t.Fatal(err)
	}
	init.keepsSilent(t)
	service.keepsSilent(t)
	agent.ask(t)
	f.Thaw()
	init.answers(t)
	service.answers(t)
	if got := strings.Fields(h.read("init.scope/cgroup.procs")); len(got) != 2 {
		t.Errorf("in init.scope are the processes %q", got)
	}
	if got := h.groups(); !slices.Equal(got, []string{"init.scope", "system.slice"}) {
		t.Errorf("there are the groups %q", got)
	}
}

// TestWhatAUserHasFrozenStaysFrozen checks a group below the root and one deeper.
func TestWhatAUserHasFrozenStaysFrozen(t *testing.T) {
	needRoot(t)
	h := newTree(t)
	agent, top, deep, other := newChild(t), newChild(t), newChild(t), newChild(t)
	h.group(".", agent)
	h.group("top", top)
	h.group("users/deep", deep)
	h.group("users/other", other)
	h.write("top/cgroup.freeze", "1")
	h.write("users/deep/cgroup.freeze", "1")
	f := h.freezer(agent, "")
	if err := f.Freeze(patience); err != nil {
		t.Fatal(err)
	}
	other.keepsSilent(t)
	f.Thaw()
	other.answers(t)
	top.keepsSilent(t)
	deep.keepsSilent(t)
	h.write("top/cgroup.freeze", "0")
	h.write("users/deep/cgroup.freeze", "0")
	top.answers(t)
	deep.answers(t)
}

// TestAFreezeThatFailsIsUndone has a group whose events say for ever that its processes run.
func TestAFreezeThatFailsIsUndone(t *testing.T) {
	dir := t.TempDir() // stands for a hierarchy
	for name, text := range map[string]string{
		"banger-rest/cgroup.freeze": "0", "banger-rest/cgroup.events": "frozen 1\n",
		"slow/cgroup.freeze": "0", "slow/cgroup.events": "populated 1\nfrozen 0\n",
		"users/cgroup.freeze": "1", "users/cgroup.events": "frozen 1\n", "cgroup.procs": "",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h := tree{t, dir}
	f := h.freezer(&child{pid: os.Getpid()}, "")
	err := f.Freeze(20 * time.Millisecond)
	if banger.CodeOf(err) != banger.CodeTimeout || !strings.Contains(err.Error(), "/slow: its processes do not stop") {
		t.Errorf("a group that does not stop gives %v", err)
	}
	if h.read("slow/cgroup.freeze") != "0" || h.read("users/cgroup.freeze") != "1" {
		t.Errorf("afterwards they say %q and %q", h.read("slow/cgroup.freeze"), h.read("users/cgroup.freeze"))
	}
}

// TestProcessesAreStopped: without control groups, each process is stopped, but for those that somebody has stopped.
func TestProcessesAreStopped(t *testing.T) {
	a, b, before := newChild(t), newChild(t), newChild(t)
	unix.Kill(before.pid, unix.SIGSTOP)
	await(t, func() bool { p, _ := look(before.pid); return !p.runs() })
	f := Below()
	if err := f.Freeze(patience); err != nil {
		t.Fatal(err)
	}
	a.keepsSilent(t)
	b.keepsSilent(t)
	f.Thaw()
	a.answers(t)
	b.answers(t)
	before.keepsSilent(t)
	unix.Kill(before.pid, unix.SIGCONT)
	before.answers(t)
}

// TestAProcessThatWaitsForItsChildIsStopped has shells that start programs all the time: a shell waits by vfork(2) for
// a child that may be stopped first.
func TestAProcessThatWaitsForItsChildIsStopped(t *testing.T) {
	for range 4 {
		cmd := exec.Command("sh", "-c", "while :; do /bin/true; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
	}
	f := Below()
	for range 50 {
		if err := f.Freeze(patience); err != nil {
			t.Fatal(err)
		}
		f.Thaw()
	}
}

// TestTheAgentFindsItsGroup, as the kernel tells it.
func TestTheAgentFindsItsGroup(t *testing.T) {
	needRoot(t)
	h, c := newTree(t), newChild(t)
	h.group("init.scope", c)
	want := filepath.Base(h.dir) + "/init.scope"
	if got, err := homeOf(c.pid); got != want || err != nil {
		t.Errorf("a process in %s is in %q, %v", want, got, err)
	}
	if _, err := homeOf(1 << 30); err == nil {
		t.Error("a process that cannot be is in a group")
	}
}

// TestWhatIsAProcessOfTheKernel compares what is told of this process and of kthreadd.
func TestWhatIsAProcessOfTheKernel(t *testing.T) {
	own, ok := look(os.Getpid())
	if !ok || own.kernel || own.ofKernel() || own.parent != os.Getppid() || !own.descendsFrom(os.Getppid()) {
		t.Errorf("this process is %+v, %v", own, ok)
	}
	if _, ok := look(1 << 30); ok {
		t.Error("a process that cannot be is there")
	}
	if comm, _ := os.ReadFile("/proc/2/comm"); string(comm) != "kthreadd\n" {
		return // this is a PID namespace
	}
	if k, ok := look(2); !ok || !k.kernel || !(process{parent: 2}).ofKernel() {
		t.Errorf("kthreadd is %+v, %v", k, ok)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root makes control groups")
	}
}

// await polls for what has no event.
func await(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("this does not happen")
		}
	}
}
