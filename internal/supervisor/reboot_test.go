package supervisor_test

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/testing/processtest"
	"banger/internal/vmm"
)

// rebootGuest makes a program in the guest ask for a reboot, and returns the VMM that will end.
func (h *host) rebootGuest(id string) vmm.Handle {
	h.t.Helper()
	old := h.status(id).VMM
	check(h.t, syscall.Kill(old.PID, syscall.SIGTERM)) // busybox's reboot sends this signal to PID 1, which is the agent
	return old
}

// TestAGuestThatRebootsBootsAgain checks that the main command runs again, and that waiters do not see an end of the
// VM. After a few reboots within a minute, the VM stays stopped.
func TestAGuestThatRebootsBootsAgain(t *testing.T) {
	processtest.Long(t)
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.command("box", "echo a boot; "+forever))
	ended := make(chan banger.VM, 1)
	go func() {
		vm, _ := s.Wait(h.ctx(), "box")
		ended <- vm
	}()
	boots := func() int { return strings.Count(h.said(s, "box", -1), "a boot\n") }
	h.await("its main command runs", func() bool { return boots() == 1 })
	for n := range 5 {
		old := h.rebootGuest(vm.ID)
		h.await("it runs again", func() bool {
			now, err := s.Get("box")
			if err == nil && now.State.AtRest() {
				t.Fatalf("it is %s: %s", now.State, now.Reason)
			}
			st, serr := h.shim(vm.ID).Status(h.ctx())
			return err == nil && now.State == banger.StateRunning && serr == nil && st.VMM != old && boots() == n+2
		})
	}
	if len(ended) > 0 {
		t.Errorf("who waits for its end is told %+v", <-ended)
	}
	if out, code := h.sh(s, "box", "echo it works"); out != "it works\n" || code != 0 {
		t.Errorf("after the reboots a command says %q, %d", out, code)
	}
	h.rebootGuest(vm.ID)
	if got := <-ended; got.State != banger.StateStopped || got.ExitCode != nil {
		t.Errorf("it ends as %s with %v", got.State, got.ExitCode)
	}
	h.wantState(s, "box", banger.StateStopped, "the guest rebooted more than 5 times within 1m0s")
	check(t, errOf(s.Start(h.ctx(), "box", false, false, banger.Discard)))
}

// TestARebootIsNotAlwaysABoot: the VM does not boot again while it is being stopped, nor if its main command belongs
// to a client.
func TestARebootIsNotAlwaysABoot(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.spec("machine"))
	h.rebootGuest(vm.ID)
	check(t, errOf(s.Stop(h.ctx(), "machine", time.Second)))
	if vm, err := s.Get("machine"); err != nil || vm.State != banger.StateStopped {
		t.Errorf("stopped while it rebooted it is %s, %v", vm.State, err)
	}

	spec := h.command("attached", forever)
	spec.Attach, spec.AutoRemove = true, true
	vm = h.run(s, spec)
	conn, err := s.Guests().Exec(h.ctx(), "attached", banger.Exec{Main: true})
	check(t, err)
	defer conn.Close()
	h.rebootGuest(vm.ID)
	h.await("the VM goes with its client", func() bool {
		_, err := s.Get("attached")
		return banger.CodeOf(err) == banger.CodeNotFound
	})
}

// TestARebootCanBeInterrupted, as any boot, and a reboot that fails leaves a failed VM.
func TestARebootCanBeInterrupted(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.spec("box"))
	h.fault("never-answer")
	h.rebootGuest(vm.ID)
	h.await("it hangs while it boots", func() bool {
		waiting, err := os.ReadDir(h.path("faults"))
		return err == nil && len(waiting) == 0
	})
	ctx, cancel := context.WithTimeout(h.ctx(), 30*time.Second)
	defer cancel()
	check(t, errOf(s.Kill(ctx, "box", 9)))
	h.wantState(s, "box", banger.StateFailed, "canceled")

	check(t, errOf(s.Start(h.ctx(), "box", false, false, banger.Discard)))
	h.fault("panic-at-boot", "panic-at-boot")
	h.rebootGuest(vm.ID)
	_, err := s.Wait(h.ctx(), "box")
	check(t, err)
	h.wantState(s, "box", banger.StateFailed, "panicked")
}
