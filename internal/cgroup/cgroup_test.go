package cgroup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The variable says what a test binary does in a group, as a child of the test.
const childVariable = "BANGER_TEST_CGROUP_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childVariable) {
	case "":
		os.Exit(m.Run())
	case "eat": // 200 MiB
		p := make([]byte, 200<<20)
		for i := 0; i < len(p); i += 4096 {
			p[i] = 1
		}
		os.Exit(0)
	case "spin": // two seconds
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		}
		os.Exit(0)
	case "fork": // a hundred processes
		for range 100 {
			if err := exec.Command("/proc/self/exe").Start(); err != nil {
				os.Exit(3)
			}
		}
		os.Exit(0)
	case "wait":
		os.Stdout.WriteString("here\n")
		syscall.Pause()
	case "session": // like a daemon of an ordinary user
		t, err := Open("banger-session")
		if err == nil {
			var f *os.File
			if f, err = t.Make("vm", Limits{Memory: 64 << 20}); err == nil {
				cmd := child("eat", f)
				if err = cmd.Run(); err != nil && t.OutOfMemory("vm") {
					err = errors.Join(t.Remove("vm"))
				}
			}
		}
		if err != nil {
			os.Stdout.WriteString(err.Error())
			os.Exit(1)
		}
		os.Stdout.WriteString(t.Dir() + " lacks " + strings.Join(t.Missing(), ","))
		os.Exit(0)
	}
}

// child returns this binary as a command in a group.
func child(does string, group *os.File) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVariable+"="+does)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	return cmd
}

// TestWhereGroupsMayBe reads files as the kernel writes them.
func TestWhereGroupsMayBe(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		check(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	for name, c := range map[string]struct{ mountinfo, mount, err string }{
		"version 2": {
			"22 21 0:20 / /proc rw - proc proc rw\n30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
			"/sys/fs/cgroup", ""},
		"both": {
			"31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			"/sys/fs/cgroup/unified", ""},
		"version 1 only": {"31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n",
			"", "no control groups of version 2"},
		"nonsense": {"x - cgroup2 \n\n", "", "no control groups of version 2"},
	} {
		mount, err := mountPoint(file("mountinfo", c.mountinfo))
		if mount != c.mount || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: mounted at %q, %v", name, mount, err)
		}
	}
	mount := filepath.Join(dir, "cgroup")
	check(t, os.MkdirAll(filepath.Join(mount, "user.slice/app.slice/term.scope"), 0o755))
	check(t, os.WriteFile(filepath.Join(mount, "user.slice/app.slice/cgroup.procs"), nil, 0o600))
	for name, c := range map[string]struct{ own, above, err string }{
		"a group of a delegated one": {"1:name=systemd:/\n0::/user.slice/app.slice/term.scope\n", "user.slice/app.slice", ""},
		"one that is not delegated":  {"0::/user.slice/app.slice\n", "", "/user.slice/app.slice is not one of a session"},
		"below the root":             {"0::/init.scope\n", "", "/init.scope is not one"},
		"the root itself":            {"0::/\n", "", "in no control group"},
		"outside of our view":        {"0::/../elsewhere\n", "", "in no control group"},
		"none":                       {"1:name=systemd:/\n", "", "in no control group"},
	} {
		above, err := delegated(mount, file("own", c.own))
		if c.err == "" && (err != nil || above != filepath.Join(mount, c.above)) ||
			c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %q, %v", name, above, err)
		}
	}
}

// TestWhichLimitsThereAre reads directories as kernels with and without CONFIG_CFS_BANDWIDTH have them. Without it,
// the controller exists but its limit does not.
func TestWhichLimitsThereAre(t *testing.T) {
	for name, c := range map[string]struct{ enabled, files, want string }{
		"all":                   {"cpuset cpu io memory pids\n", "cpu.max cpu.weight memory.max pids.max", "cpu memory pids"},
		"without CPU bandwidth": {"cpu memory pids\n", "cpu.stat cpu.weight memory.max pids.max", "memory pids"},
		"not delegated":         {"memory\n", "cpu.max memory.max pids.max", "memory"},
		"none":                  {"", "cgroup.procs", ""},
	} {
		dir := t.TempDir()
		check(t, os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(c.enabled), 0o600))
		for file := range strings.FieldsSeq(c.files) {
			check(t, os.WriteFile(filepath.Join(dir, file), nil, 0o600))
		}
		if has, err := limits(dir); err != nil || strings.Join(has, " ") != c.want {
			t.Errorf("%s: there are %q, %v", name, has, err)
		}
		tree := &Tree{dir: dir, has: strings.Fields(c.want)}
		if l := tree.InForce(Limits{Memory: 1, CPUs: 2, Tasks: 3}); (l.CPUs != 0) != strings.Contains(c.want, "cpu") {
			t.Errorf("%s: in force are %+v", name, l)
		}
	}
}

// TestAGroupIsRemovedWithItsProcesses, whichever limits this host has.
func TestAGroupIsRemovedWithItsProcesses(t *testing.T) {
	tree, err := Open("banger-test-" + strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Skipf("this user can make no groups here: %v", err)
	}
	f, err := tree.Make("vm", Limits{Memory: 256 << 20, CPUs: 1, Tasks: 100})
	check(t, err)
	defer f.Close()
	cmd := child("wait", f)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	_, err = out.Read(make([]byte, 1))
	check(t, err)
	procs, err := os.ReadFile(filepath.Join(tree.Dir(), "vm/cgroup.procs"))
	check(t, err)
	if !slices.Contains(strings.Fields(string(procs)), strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("in the group is %q, not process %d", procs, cmd.Process.Pid)
	}
	if names, err := tree.Names(); err != nil || !slices.Equal(names, []string{"vm"}) {
		t.Errorf("the groups are %q, %v", names, err)
	}
	check(t, tree.Remove("vm"))
	if err := cmd.Wait(); !killed(err) {
		t.Errorf("its process ended with %v", err)
	}
	if _, err := os.Stat(tree.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the tree is still there: %v", err)
	}
	check(t, tree.Remove("vm")) // a second removal is no error
	if names, err := tree.Names(); err != nil || len(names) > 0 {
		t.Errorf("there are still %q, %v", names, err)
	}
}

// heldUp reports whether a cpu.stat shows that processes had to wait because of their group's limit.
func heldUp(stat string) bool {
	return strings.Contains(stat, "nr_throttled ") && !strings.Contains(stat, "nr_throttled 0\n")
}

// TestLimitsHold needs a kernel with all controllers. e2e/cgroup runs it in a guest.
func TestLimitsHold(t *testing.T) {
	if os.Getenv("BANGER_TEST_CGROUP") == "" {
		t.Skip("e2e/cgroup runs this in a guest")
	}
	if n := runtime.NumCPU(); n < 2 {
		t.Fatalf("on %d CPU a limit of one CPU holds nobody up: give the guest two", n)
	}
	tree, err := Open("banger-test")
	check(t, err)
	if missing := tree.Missing(); len(missing) > 0 {
		t.Fatalf("groups have no %q", missing)
	}
	run := func(name, does string, l Limits) error {
		f, err := tree.Make(name, l)
		check(t, err)
		defer f.Close()
		return child(does, f).Run()
	}
	if err := run("small", "eat", Limits{Memory: 64 << 20}); !killed(err) || !tree.OutOfMemory("small") {
		t.Errorf("200 MiB in a group of 64: %v, told as out of memory: %t", err, tree.OutOfMemory("small"))
	}
	if err := run("large", "eat", Limits{Memory: 400 << 20}); err != nil || tree.OutOfMemory("large") {
		t.Errorf("200 MiB in a group of 400: %v, told as out of memory: %t", err, tree.OutOfMemory("large"))
	}
	var exit *exec.ExitError
	if err := run("few", "fork", Limits{Tasks: 30}); !errors.As(err, &exit) || exit.ExitCode() == 0 {
		t.Errorf("100 processes in a group of 30 tasks: %v", err)
	}
	f, err := tree.Make("one", Limits{CPUs: 1})
	check(t, err)
	defer f.Close()
	stat := ""
	for round := 0; round < 10 && !heldUp(stat); round++ { // the kernel may keep all three on one CPU for seconds
		var spinners []*exec.Cmd
		for range 3 {
			cmd := child("spin", f)
			check(t, cmd.Start())
			spinners = append(spinners, cmd)
		}
		for _, cmd := range spinners {
			check(t, cmd.Wait())
		}
		data, err := os.ReadFile(filepath.Join(tree.Dir(), "one/cpu.stat"))
		check(t, err)
		stat = string(data)
	}
	if !heldUp(stat) {
		t.Errorf("three processes in a group of one CPU were never held up:\n%s", stat)
	}
	for _, name := range []string{"small", "large", "few", "one"} {
		check(t, tree.Remove(name))
	}
	if _, err := os.Stat(tree.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the tree is still there: %v", err)
	}
	session(t)
}

// session is a user session whose groups were delegated to the user, as systemd does it.
func session(t *testing.T) {
	const uid = 1000
	mount, err := mountPoint("/proc/self/mountinfo")
	check(t, err)
	user := filepath.Join(mount, "user")
	check(t, os.MkdirAll(filepath.Join(user, "term.scope"), 0o755))
	for _, file := range []string{"", "cgroup.procs", "cgroup.subtree_control", "term.scope", "term.scope/cgroup.procs"} {
		check(t, os.Chown(filepath.Join(user, file), uid, uid))
	}
	scope, err := os.Open(filepath.Join(user, "term.scope"))
	check(t, err)
	defer scope.Close()
	cmd := child("session", scope)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	out, err := cmd.Output()
	if want := filepath.Join(user, "banger-session") + " lacks "; err != nil || string(out) != want {
		t.Errorf("in a session of his a user has %q, %v, not %q", out, err, want)
	}
	check(t, os.Remove(filepath.Join(user, "term.scope")))
	check(t, os.Remove(user)) // nothing else is left in it
}

func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
