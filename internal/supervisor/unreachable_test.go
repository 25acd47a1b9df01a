package supervisor_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/testing/processtest"

	"banger"
)

// TestAShimThatDoesNotAnswerIsNotKilled: if a VM's process cannot answer when a daemon starts, for example because
// the host swaps, the daemon keeps the VM and takes it over when it answers.
func TestAShimThatDoesNotAnswerIsNotKilled(t *testing.T) {
	processtest.Long(t)
	h := newHost(t)
	first := h.daemon()
	vm := h.run(first, h.spec("box"))
	other := h.run(first, h.spec("other"))
	first.Close()
	shim := h.status(vm.ID).Shim.PID
	for _, pid := range []int{shim, h.status(other.ID).Shim.PID} {
		h.freeze(pid)
	}
	s := h.daemon()
	for _, name := range []string{"box", "other"} {
		if got, err := s.Get(name); err != nil || got.State != banger.StateUnreachable {
			t.Errorf("VM %s is %s, %v", name, got.State, err)
		}
	}
	check(t, syscall.Kill(shim, syscall.SIGCONT))
	h.await("it answers", func() bool { got, _ := s.Get("box"); return got.State == banger.StateRunning })
	h.wantState(s, "box", banger.StateRunning, "")
	if out, _ := h.sh(s, "box", "echo here"); out != "here\n" {
		t.Errorf("it prints %q", out)
	}
	// A user can end a VM that never answers.
	if _, err := s.Kill(h.ctx(), "other", 9); err != nil {
		t.Error(err)
	}
	h.wantState(s, "other", banger.StateStopped, "killed by the user")
}

// freeze stops a process and returns when all its threads have stopped.
func (h *host) freeze(pid int) {
	h.t.Helper()
	check(h.t, syscall.Kill(pid, syscall.SIGSTOP))
	h.await("it stops", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		check(h.t, err)
		for _, thread := range threads {
			if stat, err := os.ReadFile(thread); err == nil && !strings.Contains(string(stat), ") T ") {
				return false
			}
		}
		return len(threads) > 0
	})
}

// TestWhatOnlyLooksLikeAShimIsNotKilled: a process has the arguments of a shim whose VM must be undone, but runs
// another program.
func TestWhatOnlyLooksLikeAShimIsNotKilled(t *testing.T) {
	h := newHost(t)
	half := banger.VM{ID: banger.NewID(), Name: "half"}
	_, err := h.opts.Store.Create(h.ctx(), half)
	check(t, err)
	yes := exec.Command("yes") // takes any arguments, and blocks while its output is not read
	yes.Args = append(append([]string{}, h.opts.ShimArgv...), h.path("state/vms/"+half.ID))
	out, err := yes.StdoutPipe()
	check(t, err)
	check(t, yes.Start())
	defer yes.Wait()
	defer yes.Process.Kill()
	_, err = out.Read(make([]byte, 1))
	check(t, err)
	h.daemon()
	if err := yes.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("it is gone: %v", err)
	}
	if fields, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", yes.Process.Pid)); err != nil ||
		strings.Contains(string(fields), ") Z ") {
		t.Errorf("it was killed: %s, %v", fields, err)
	}
}

// TestAStopOfAFrozenGuestTakesItsGrace, and not the additional time in which a guest that answers may write its
// disks.
func TestAStopOfAFrozenGuestTakesItsGrace(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.spec("box"))
	h.freeze(h.status(vm.ID).VMM.PID)
	began := time.Now()
	check(t, errOf(s.Stop(h.ctx(), "box", 200*time.Millisecond)))
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it takes %s", took)
	}
	h.wantState(s, "box", banger.StateStopped, "did not shut down")
}
