package command

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/testing/agenttest"
)

const reaperProcess = "BANGER_TEST_REAPER"

// TestReaper checks that the reaper reports each child's end once, to its own listener, however
// short the child lives, and also waits for children without a listener. It runs in a process of
// its own, because the reaper waits for all children of its process.
func TestReaper(t *testing.T) {
	if os.Getenv(reaperProcess) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestReaper$", "-test.v", "-test.count=1")
		cmd.Env = append(os.Environ(), reaperProcess+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestReaper")) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	r := NewReaper(nil)
	attr := &syscall.ProcAttr{Env: []string{"PATH=" + DefaultPath}}
	type end struct{ want, got int }
	ends := make(chan end, 100)
	var begun sync.WaitGroup
	for want := range cap(ends) {
		begun.Go(func() {
			_, err := r.fork("/bin/sh", []string{"sh", "-c", "exit $1", "sh", string(rune('0' + want%10))}, attr,
				func(ws unix.WaitStatus) { ends <- end{want % 10, ws.ExitStatus()} })
			if err != nil {
				t.Error(err)
			}
		})
	}
	stranger, err := syscall.ForkExec("/bin/true", []string{"true"}, attr)
	if err != nil {
		t.Fatal(err)
	}
	go r.Run() // lives on, as in the agent
	for range cap(ends) {
		if e := agenttest.Within(t, "a child's end is told", ends); e.got != e.want {
			t.Errorf("a child that exits with %d is told as %d", e.want, e.got)
		}
	}
	begun.Wait()
	agenttest.Await(t, "a stranger's end is taken", func() bool { return syscall.Kill(stranger, 0) == syscall.ESRCH })
	if _, err := r.fork("/no/such", []string{"x"}, attr,
		func(unix.WaitStatus) { t.Error("what never began has ended") }); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a program that is absent gives %v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.children) != 0 {
		t.Errorf("%d children are remembered after their end", len(r.children))
	}
}
