package command

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/testing/processtest"
)

// owners starts commands in a group "one" of their own, in a hierarchy of the test.
type owners struct {
	*testing.T
	g    *Group
	dir  string // of the group "one"
	path string // of that group in /proc/PID/cgroup
}

func newOwners(t *testing.T) owners {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root makes control groups")
	}
	dir, path := ownHierarchy(t)
	g, err := openGroup(dir)
	must(t, err)
	t.Cleanup(g.close)
	return owners{t, g, filepath.Join(dir, "banger/one"), path + "/banger/one"}
}

// start starts a command that ends when it is killed.
func (o owners) start() (pid int, own *ownedGroup, err error) {
	o.Helper()
	r, w, err := os.Pipe()
	must(o.T, err)
	defer r.Close()
	o.Cleanup(func() { w.Close() })
	attr := &syscall.ProcAttr{Files: []uintptr{r.Fd(), 1, 2}, Sys: new(syscall.SysProcAttr)}
	fork := func() (int, error) { return syscall.ForkExec("/bin/cat", []string{"cat"}, attr) }
	pid, own, err = o.g.start("one", attr, fork)
	if err == nil {
		groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		must(o.T, err)
		if want := "0::" + o.path + "\n"; !strings.Contains(string(groups), want) {
			o.Errorf("the command's groups are %s, without %s", groups, want)
		}
	}
	return pid, own, err
}

// reap waits for the end of a command, and checks that it was killed.
func (o owners) reap(pid int) {
	o.Helper()
	var ws syscall.WaitStatus
	_, err := syscall.Wait4(pid, &ws, 0, nil)
	must(o.T, err)
	if !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		o.Errorf("the command has ended by %v", ws)
	}
}

// there checks whether the group is there.
func (o owners) there(want bool) {
	o.Helper()
	if _, err := os.Stat(o.dir); errors.Is(err, os.ErrNotExist) == want {
		o.Errorf("the group is there: %v, %v", !want, err)
	}
}

// freeze freezes the group.
func (o owners) freeze(own *ownedGroup) {
	o.Helper()
	events, err := os.Open(o.dir + "/cgroup.events")
	must(o.T, err)
	defer events.Close()
	must(o.T, os.WriteFile(o.dir+"/cgroup.freeze", []byte("1"), 0))
	for !own.frozen() { // cgroup-v2.rst, cgroup.events: a change is an event
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}, 1000)
		if err != unix.EINTR {
			must(o.T, err)
		}
	}
}

// awaitGone waits until a group is removed.
func (o owners) awaitGone(own *ownedGroup) {
	o.Helper()
	select {
	case <-own.gone:
	case <-processtest.WithPatience(o.T).Done():
		o.Error("the group is not removed")
	}
	o.there(false)
	if len(o.g.own.left) != 0 {
		o.Errorf("left are %v", o.g.own.left)
	}
}

// TestAGroupGoesWithItsLastProcess: a command has ended, and has left a process and a group in its group.
func TestAGroupGoesWithItsLastProcess(t *testing.T) {
	o := newOwners(t)
	left, own, err := o.start()
	must(t, err)
	must(t, unix.Mkdir(o.dir+"/child", 0o755))
	own.remove()
	o.there(true)
	must(t, syscall.Kill(left, syscall.SIGKILL))
	o.reap(left)
	o.awaitGone(own)
	own.remove() // does nothing
}

// TestALaterCommandTakesTheGroup in which an earlier one has left a process. While it runs the group stays.
func TestALaterCommandTakesTheGroup(t *testing.T) {
	o := newOwners(t)
	left, first, err := o.start()
	must(t, err)
	first.remove()
	pid, own, err := o.start()
	must(t, err)
	for _, p := range []int{left, pid} {
		must(t, syscall.Kill(p, syscall.SIGKILL))
		o.reap(p)
	}
	o.g.own.mu.Lock()
	if own.tryRemove() {
		t.Error("the group is removed before its command is forgotten")
	}
	o.g.own.mu.Unlock()
	own.remove()
	o.awaitGone(own)
}

// TestWhatIsLeftCanBeKilled, also if somebody has frozen it. No command starts in such a group.
func TestWhatIsLeftCanBeKilled(t *testing.T) {
	o := newOwners(t)
	left, own, err := o.start()
	must(t, err)
	own.remove()
	o.freeze(own)
	if _, _, err := o.start(); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("with a frozen group a start gives %v", err)
	}
	done := make(chan struct{})
	go func() { // ends with the group
		own.clear(processtest.Patience)
		close(done)
	}()
	o.reap(left)
	<-done
	o.awaitGone(own)
}
