package supervisor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/shim"
	"banger/internal/testing/hosttest"
	"banger/internal/testing/vmmtest"
)

// forever is a main command that runs until it is signalled.
const forever = "exec sleep 1000"

// TestTheMainCommandsExitEndsTheVM also checks that its code is kept, and that the next start clears it.
func TestTheMainCommandsExitEndsTheVM(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	h.run(s, h.command("job", "echo so says $HOSTNAME; sleep 0.1; exit 5"))
	for range 2 {
		vm, err := s.Wait(h.ctx(), "job")
		if err != nil || vm.ExitCode == nil || *vm.ExitCode != 5 {
			t.Fatalf("it ends with %+v, %v", vm.ExitCode, err)
		}
		h.wantState(s, "job", banger.StateStopped, "main command exited with code 5")
		if row := h.row(vm.ID); row.ExitCode == nil || *row.ExitCode != 5 {
			t.Errorf("the row has the exit code %v", row.ExitCode)
		}
		up, err := s.Start(h.ctx(), "job", false, false, banger.Discard)
		check(t, err)
		if up.State == banger.StateRunning && up.ExitCode != nil {
			t.Errorf("while it runs it has the exit code %d", *up.ExitCode)
		}
	}
	_, err := s.Wait(h.ctx(), "job")
	check(t, err)
	if n := strings.Count(h.said(s, "job", -1), "so says"); n != 3 {
		t.Errorf("three runs print %d times:\n%s", n, h.said(s, "job", -1))
	}
}

// TestKillIsASignalToTheMainCommand also checks that signal 9 ends the VMM.
func TestKillIsASignalToTheMainCommand(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.command("job", forever))
	_, err := s.Kill(h.ctx(), "job", int(syscall.SIGUSR1))
	check(t, err)
	ended, err := s.Wait(h.ctx(), "job")
	check(t, err)
	if ended.ExitCode == nil || *ended.ExitCode != 128+int(syscall.SIGUSR1) {
		t.Errorf("it ends with %v", ended.ExitCode)
	}
	h.wantState(s, "job", banger.StateStopped, "main command was killed by signal 10")
	_, err = s.Start(h.ctx(), vm.ID, false, false, banger.Discard)
	check(t, err)
	_, err = s.Kill(h.ctx(), "job", 9)
	check(t, err)
	wantExit(t, h.wantState(s, "job", banger.StateStopped, "killed by the user"), 137)
}

// TestAnAttachedClientStartsTheMainCommand also checks that the client can do so only once.
func TestAnAttachedClientStartsTheMainCommand(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	spec := h.command("job", `echo "$BOTH and $FROM"; exit 3`)
	spec.Attach, spec.Env = true, []string{"BOTH=spec"}
	h.run(s, spec)
	conn, err := s.Guests().Exec(h.ctx(), "job", banger.Exec{Main: true})
	check(t, err)
	_, err = s.Guests().Exec(h.ctx(), "job", banger.Exec{Main: true})
	if err == nil {
		t.Error("the main command is started twice")
	}
	if out, code := h.output(conn); out != "spec and image\n" || code != 3 {
		t.Errorf("the main command prints %q and exits with %d", out, code)
	}
	if vm, err := s.Wait(h.ctx(), "job"); err != nil || vm.ExitCode == nil || *vm.ExitCode != 3 {
		t.Errorf("the VM ends with %v, %v", vm.ExitCode, err)
	}
}

// TestEveryWaiterIsTold, also if the VM is removed when it ends.
func TestEveryWaiterIsTold(t *testing.T) {
	for _, autoRemove := range []bool{false, true} {
		t.Run(fmt.Sprintf("auto-remove %v", autoRemove), func(t *testing.T) {
			h := newHost(t)
			s := h.daemon()
			spec := h.command("job", forever)
			spec.AutoRemove = autoRemove
			vm := h.run(s, spec)
			canceled, cancel := context.WithCancel(h.ctx())
			var waiters sync.WaitGroup
			for range 8 {
				waiters.Go(func() {
					got, err := s.Wait(h.ctx(), "job")
					if err != nil || got.ExitCode == nil || *got.ExitCode != 143 || got.State != banger.StateStopped {
						t.Errorf("a waiter is told %s %v, %v", got.State, got.ExitCode, err)
					}
				})
			}
			waiters.Go(func() {
				_, err := s.Wait(canceled, vm.ID)
				wantCode(t, err, banger.CodeCanceled)
				_, err = s.Kill(h.ctx(), "job", int(syscall.SIGTERM))
				if err != nil {
					t.Error(err)
				}
			})
			cancel()
			waiters.Wait()
			if autoRemove {
				h.wantNothing(s)
			} else {
				h.wantState(s, "job", banger.StateStopped, "signal 15")
			}
		})
	}
}

// TestTheDeathOfAShimIsNoticed also checks the reason, and that the VMM ends with the shim.
func TestTheDeathOfAShimIsNoticed(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.command("box", forever))
	st := h.status(vm.ID)
	check(t, syscall.Kill(st.Shim.PID, syscall.SIGKILL))
	ended, err := s.Wait(h.ctx(), "box")
	check(t, err)
	h.wantState(s, "box", banger.StateFailed, "its shim was killed")
	wantExit(t, ended, 137)
	h.await("the VMM dies with its shim", func() bool { return !st.VMM.Alive() && !st.Shim.Alive() })
	_, err = s.Start(h.ctx(), "box", false, false, banger.Discard)
	check(t, err)
}

// TestTheDeathOfAVMMIsNoticed with its reason.
func TestTheDeathOfAVMMIsNoticed(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.spec("box"))
	check(t, syscall.Kill(h.status(vm.ID).VMM.PID, syscall.SIGKILL))
	ended, err := s.Wait(h.ctx(), "box")
	check(t, err)
	h.wantState(s, "box", banger.StateFailed, "killed by signal 9")
	wantExit(t, ended, 137)
}

// wantExit checks the exit code that wait and ps show.
func wantExit(t *testing.T, vm banger.VM, code int) {
	t.Helper()
	if vm.ExitCode == nil || *vm.ExitCode != code {
		t.Errorf("VM %s ends with %v, not %d", vm.Name, vm.ExitCode, code)
	}
}

// TestAStartCanBeStopped: Stop, Kill and Remove do not wait for a guest that never answers.
func TestAStartCanBeStopped(t *testing.T) {
	for name, c := range map[string]struct {
		stop func(*host, stopper) error
		gone bool
	}{
		"kill":   {func(h *host, s stopper) error { return errOf(s.Kill(h.ctx(), "box", 9)) }, false},
		"remove": {func(h *host, s stopper) error { return s.Remove(h.ctx(), "box", true) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			s := h.daemon()
			_, err := s.Create(h.ctx(), h.spec("box"), nil, false, banger.Discard)
			check(t, err)
			h.fault(vmmtest.NeverAnswer)
			started := make(chan error)
			go func() { started <- errOf(s.Start(h.ctx(), "box", false, false, banger.Discard)) }()
			h.await("the guest hangs", func() bool { return len(h.processes()) == 2 })
			if err := c.stop(h, s); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			wantCode(t, <-started, banger.CodeCanceled)
			h.await("no process is left", func() bool { return len(h.processes()) == 0 })
			if c.gone {
				h.wantNothing(s)
				return
			}
			h.wantState(s, "box", banger.StateFailed, "canceled")
		})
	}
}

// stopper has the methods of a supervisor that end a VM.
type stopper interface {
	Kill(context.Context, string, int) (banger.VM, error)
	Remove(context.Context, string, bool) error
}

// TestAKillNeedNotWaitForAStop of a guest that hangs.
func TestAKillNeedNotWaitForAStop(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.spec("box"))
	check(t, syscall.Kill(h.status(vm.ID).VMM.PID, syscall.SIGSTOP))
	stopped := make(chan error)
	go func() { stopped <- errOf(s.Stop(h.ctx(), "box", time.Minute)) }()
	h.await("it is stopping",
		func() bool { vm, err := s.Get("box"); return err == nil && vm.State == banger.StateStopping })
	check(t, errOf(s.Kill(h.ctx(), "box", 9)))
	check(t, <-stopped)
	h.wantState(s, "box", banger.StateStopped, "stopped by the user") // not "killed" after the grace period
	h.await("no process is left", func() bool { return len(h.processes()) == 0 })
}

// toTheEnd is a view of all output until the VM's end.
var toTheEnd = banger.LogView{Tail: -1, Follow: true}

// TestOutputIsFollowedUntilTheEnd of the VM. After that, Output reads the file.
func TestOutputIsFollowedUntilTheEnd(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	h.run(s, h.command("job", "trap 'echo last >&2' USR1; echo first; while :; do sleep 0.02; done"))
	frames := vmmtest.NewConsole()
	followed := make(chan error)
	go func() {
		_, err := s.Guests().Output(h.ctx(), "job", toTheEnd, frames)
		followed <- err
	}()
	frames.Await(t, "first\n")
	_, err := s.Kill(h.ctx(), "job", int(syscall.SIGUSR1))
	check(t, err)
	frames.Await(t, "last\n")
	_, err = s.Kill(h.ctx(), "job", 9)
	check(t, err)
	check(t, <-followed)
	if _, err := s.Guests().Output(h.ctx(), "nonesuch", toTheEnd, frames); banger.CodeOf(err) != banger.CodeNotFound {
		t.Errorf("the output of no VM: %v", err)
	}
	all := hosttest.Output(t, strings.NewReader(frames.String())) // the shell, too, may say something about the signal
	if !strings.HasPrefix(all, "first\n") || h.said(s, "job", -1) != all {
		t.Errorf("the file has %q, and the follower got %q", h.said(s, "job", -1), all)
	}
	for tail := range 3 {
		if got := h.said(s, "job", tail); strings.Count(got, "\n") != tail || !strings.HasSuffix(all, got) {
			t.Errorf("the last %d lines of %q are %q", tail, all, got)
		}
	}
}

// TestTheConsoleIsFollowedUntilTheEnd of the VM. It is all that there is of a VM without a main command.
func TestTheConsoleIsFollowedUntilTheEnd(t *testing.T) {
	h := newHost(t)
	h.fault(vmmtest.PanicAtBoot) // says something on the console; the VM then boots again
	s := h.daemon()
	h.run(s, h.spec("box"))
	if apart, err := s.Guests().Output(h.ctx(), "box", banger.LogView{Tail: -1}, t.Output()); apart || err != nil {
		t.Errorf("its output is apart: %t, %v", apart, err)
	}
	console := vmmtest.NewConsole()
	followed := make(chan error)
	go func() { followed <- s.Guests().Logs(h.ctx(), "box", -1, true, console) }()
	console.Await(t, vmmtest.PanicText)
	check(t, errOf(s.Kill(h.ctx(), "box", 9)))
	check(t, <-followed)
	var out bytes.Buffer
	check(t, s.Guests().Logs(h.ctx(), "box", -1, false, &out))
	if out.String() != console.String() {
		t.Errorf("the file has %q, and the follower got %q", &out, console)
	}
	if err := s.Guests().Logs(h.ctx(), "nonesuch", -1, true, &out); banger.CodeOf(err) != banger.CodeNotFound {
		t.Errorf("logs of no VM: %v", err)
	}
}

// TestTheOutputOfAnEarlierBangerIsOnTheConsole: a VM that started before the output was kept apart has no file of it.
func TestTheOutputOfAnEarlierBangerIsOnTheConsole(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.command("job", forever))
	check(t, os.Remove(shim.OutputPath(h.path("state/vms/"+vm.ID))))
	if apart, err := s.Guests().Output(h.ctx(), "job", toTheEnd, t.Output()); apart || err != nil {
		t.Errorf("its output is apart: %t, %v", apart, err)
	}
}

// TestWhatIsUsedCannotBeRemoved also checks that it can be removed when it is no longer used.
func TestWhatIsUsedCannotBeRemoved(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	_, err := s.Create(h.ctx(), h.spec("box"), nil, false, banger.Discard)
	check(t, err)
	img, err := s.Library().Image(h.image)
	check(t, err)
	wantCode(t, s.Library().RemoveImage(img.Digest), banger.CodeConflict)
	wantCode(t, s.Library().RemoveKernel("test"), banger.CodeConflict)
	removed, err := s.Prune(h.ctx())
	if err != nil || len(removed) != 1 || removed[0].Name != "box" {
		t.Errorf("pruned %+v, %v", removed, err)
	}
	check(t, errors.Join(s.Library().RemoveImage(h.image), s.Library().RemoveKernel("test")))
	h.wantNothing(s)
}
