package supervisor_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/supervisor"
	"banger/internal/testing/processtest"
)

// restarting returns a VM with a restart policy whose main command is a shell script.
func (h *host) restarting(name, policy string, max int, script string) banger.Spec {
	spec := h.command(name, script)
	spec.Restart = banger.RestartPolicy{Name: policy, Max: max}
	return spec
}

// living returns a VM with a time to live that runs until it is stopped.
func (h *host) living(name string, seconds int64, action string) banger.Spec {
	spec := h.command(name, forever)
	spec.TTL = banger.Timer{Seconds: seconds, Action: action}
	return spec
}

// awaitVM waits until a VM is as wanted.
func (h *host) awaitVM(s *supervisor.Supervisor, ref, what string, ok func(banger.VM) bool) {
	h.t.Helper()
	h.await(what, func() bool {
		vm, err := s.Get(ref)
		return err == nil && ok(vm)
	})
}

func isRunning(vm banger.VM) bool { return vm.State == banger.StateRunning }

// TestACommandThatFailsRunsAgain checks that it does so as often as the policy says. Each run is counted in the row. A
// start by a user begins to count anew.
func TestACommandThatFailsRunsAgain(t *testing.T) {
	processtest.Long(t)
	h := newHost(t)
	s := h.daemon()
	h.run(s, h.restarting("box", banger.RestartOnFailure, 2, "echo a try; exit 3"))
	tries := func(n int) func() bool {
		return func() bool {
			vm, err := s.Get("box")
			check(t, err)
			return vm.State == banger.StateStopped && vm.Restarts == 2 && vm.RestartAt.IsZero() &&
				strings.Count(h.said(s, "box", -1), "a try\n") == n
		}
	}
	h.await("it has run three times", tries(3))
	vm := h.wantState(s, "box", banger.StateStopped, "exited with code 3")
	if row := h.row(vm.ID); row.Restarts != 2 || row.ExitCode == nil || *row.ExitCode != 3 || len(vm.Due) > 0 {
		t.Errorf("the row has %+v", row)
	}
	check(t, errOf(s.Start(h.ctx(), "box", false, false, banger.Discard)))
	h.await("it has run three times more", tries(6))
}

// TestAVMThatAlwaysRuns starts again after a good end, a power-off and the death of its VMM, until a user stops it.
// The next daemon starts it once more.
func TestAVMThatAlwaysRuns(t *testing.T) {
	processtest.Long(t)
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.restarting("box", banger.RestartAlways, 0, "echo up; "+forever))
	h.await("its main command runs", func() bool { return h.said(s, "box", -1) == "up\n" })
	restarts := 0
	again := func(why string) {
		t.Helper()
		restarts++
		h.awaitVM(s, "box", "it runs again after "+why, func(vm banger.VM) bool {
			return isRunning(vm) && vm.Restarts == restarts &&
				strings.Count(h.said(s, "box", -1), "up\n") == restarts+1
		})
	}
	check(t, syscall.Kill(h.status(vm.ID).VMM.PID, syscall.SIGKILL))
	again("the death of its VMM")
	check(t, errOf(s.Kill(h.ctx(), "box", int(syscall.SIGTERM))))
	again("the end of its main command")

	check(t, errOf(s.Stop(h.ctx(), "box", time.Second)))
	vm = h.wantState(s, "box", banger.StateStopped, "stopped by the user")
	if len(vm.Due) > 0 || !h.row(vm.ID).Halted {
		t.Errorf("what a user has stopped is %+v", vm)
	}
	s.Close()
	s = h.daemon()
	again("the start of the daemon")
	check(t, s.Remove(h.ctx(), "box", true))
	h.wantNothing(s)
}

// TestThePolicyOfWhatEndedWhileNoDaemonRan: it follows its policy when the daemon starts. A VM that never
// ran does not start.
func TestThePolicyOfWhatEndedWhileNoDaemonRan(t *testing.T) {
	processtest.Long(t)
	h := newHost(t)
	s := h.daemon()
	failed := h.run(s, h.restarting("failed", banger.RestartOnFailure, 0, forever))
	plain := h.run(s, h.command("plain", forever))
	created := h.restarting("created", banger.RestartAlways, 0, forever)
	check(t, errOf(s.Create(h.ctx(), created, nil, false, banger.Discard)))
	stopped := h.run(s, h.restarting("stopped", banger.RestartOnFailure, 0, forever))
	check(t, errOf(s.Stop(h.ctx(), "stopped", time.Second)))
	s.Close()
	for _, vm := range []banger.VM{failed, plain} {
		check(t, syscall.Kill(h.status(vm.ID).VMM.PID, syscall.SIGKILL))
	}
	h.await("they have ended", func() bool { return len(h.processes()) == 0 })
	s = h.daemon()
	h.awaitVM(s, "failed", "it runs again", func(vm banger.VM) bool { return isRunning(vm) && vm.Restarts == 1 })
	h.wantState(s, "plain", banger.StateFailed, "while no daemon ran")
	h.wantState(s, "created", banger.StateCreated, "")
	h.wantState(s, stopped.ID, banger.StateStopped, "stopped by the user")
}

// TestAPendingRestart is kept for the next daemon, is not pruned, and ends when a user stops the VM.
func TestAPendingRestart(t *testing.T) {
	processtest.Long(t)
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.restarting("box", banger.RestartOnFailure, 0, "exit 3"))
	pending := func(vm banger.VM) bool { // long enough for the steps below
		return vm.State.AtRest() && time.Until(vm.RestartAt) > time.Second
	}
	h.awaitVM(s, "box", "it waits", pending)
	if removed, err := s.Prune(h.ctx()); err != nil || len(removed) > 0 {
		t.Errorf("prune has removed %+v, %v", removed, err)
	}
	s.Close()
	before := h.row(vm.ID)
	if before.RestartAt.IsZero() {
		t.Fatalf("the row has no restart: %+v", before)
	}
	s = h.daemon()
	h.awaitVM(s, "box", "the next daemon starts it", func(vm banger.VM) bool { return vm.Restarts > before.Restarts })
	h.awaitVM(s, "box", "it waits again", func(vm banger.VM) bool { return pending(vm) && len(vm.Due) == 1 })
	check(t, errOf(s.Stop(h.ctx(), "box", time.Second)))
	if row := h.row(vm.ID); !row.RestartAt.IsZero() || !row.Halted {
		t.Errorf("after a stop the row is %+v", row)
	}
}

// TestTheTimeToLive ends, suspends or removes a VM, also when it has passed while no daemon ran.
func TestTheTimeToLive(t *testing.T) {
	processtest.Long(t)
	h := newHost(t)
	s := h.daemon()
	always := h.living("always", 1, banger.ActionStop)
	always.Restart.Name = banger.RestartAlways
	h.run(s, always)
	h.run(s, h.living("gone", 1, banger.ActionRemove))
	h.awaitVM(s, "always", "it was stopped", func(vm banger.VM) bool { return vm.State == banger.StateStopped })
	if vm := h.wantState(s, "always", banger.StateStopped, "its time to live was over"); len(vm.Due) > 0 {
		t.Errorf("it will still be %+v", vm.Due)
	}
	h.await("the other was removed", func() bool {
		_, err := s.Get("gone")
		return banger.CodeOf(err) == banger.CodeNotFound
	})

	late := h.run(s, h.living("late", 3, banger.ActionRemove))
	check(t, errOf(s.Stop(h.ctx(), "late", time.Second)))
	s.Close()
	h.await("its time is over", func() bool { return time.Since(late.LivesSince) > 3*time.Second })
	s = h.daemon()
	h.await("the next daemon removes it", func() bool {
		_, err := s.Get("late")
		return banger.CodeOf(err) == banger.CodeNotFound
	})
	h.wantState(s, "always", banger.StateStopped, "its time to live was over")
}

// TestARebootIsNoNewLife: the time to live goes on.
func TestARebootIsNoNewLife(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.living("box", 3600, banger.ActionStop))
	h.rebootGuest(vm.ID)
	h.awaitVM(s, "box", "it runs again", func(now banger.VM) bool {
		return isRunning(now) && now.StartedAt.After(vm.StartedAt)
	})
	if now, _ := s.Get("box"); !now.LivesSince.Equal(vm.LivesSince) || len(now.Due) != 1 {
		t.Errorf("it lives since %s, not %s", now.LivesSince, vm.LivesSince)
	}
}

// TestAnIdleVMIsParked, though a client is attached that moves nothing. A VM that a client uses is not.
func TestAnIdleVMIsParked(t *testing.T) {
	processtest.Long(t)
	h := newHost(t)
	h.opts.IdleTick = 500 * time.Millisecond
	s := h.daemon()
	idle := func(name string) banger.Spec {
		spec := h.spec(name)
		spec.Idle = banger.Timer{Seconds: 2, Action: banger.ActionStop}
		spec.Restart.Name = banger.RestartAlways
		return spec
	}
	used := h.run(s, idle("used"))
	conn, err := s.Guests().Exec(h.ctx(), "used", banger.Exec{Args: []string{"/bin/cat"}, Stdin: true})
	check(t, err)
	defer conn.Close()
	h.run(s, idle("idle"))
	silent, err := s.Guests().Exec(h.ctx(), "idle", banger.Exec{Args: []string{"/bin/cat"}, Stdin: true})
	check(t, err)
	defer silent.Close()
	h.await("the idle VM was stopped", func() bool {
		check(t, frame.Write(conn, frame.Stdin, []byte("x")))
		vm, err := s.Get("idle")
		return err == nil && vm.State == banger.StateStopped
	})
	if vm := h.wantState(s, "idle", banger.StateStopped, "it was idle for 2s"); !vm.Halted || len(vm.Due) > 0 {
		t.Errorf("it is %+v", vm)
	}
	vm := h.wantState(s, used.ID, banger.StateRunning, "")
	if want := (banger.Due{Action: banger.ActionStop, Idle: 2}); len(vm.Due) != 1 || vm.Due[0] != want {
		t.Errorf("it will be %+v", vm.Due)
	}
	h.awaitVM(s, "used", "the other VM is stopped too, when nothing moves any more", func(vm banger.VM) bool {
		return vm.State == banger.StateStopped
	})
}

// TestAnUpdateWaitsForTheNextBoot in the row, also while the VM reboots by itself. What a VM does by itself changes at
// once.
func TestAnUpdateWaitsForTheNextBoot(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.command("box", forever))
	memory, old := int64(1<<30), vm.Spec.Memory
	ttl := banger.Timer{Seconds: 3600, Action: banger.ActionRemove}
	vm, err := s.Update(h.ctx(), "box", banger.Update{Memory: &memory, TTL: &ttl})
	check(t, err)
	if vm.Spec.Memory != old || vm.Next == nil || vm.Next.Memory != memory || len(vm.Due) != 1 {
		t.Errorf("while it runs it has %d, then %+v, and will be %+v", vm.Spec.Memory, vm.Next, vm.Due)
	}
	s.Close()
	if row := h.row(vm.ID); row.Next == nil || row.Next.Memory != memory || row.Spec.TTL != ttl {
		t.Errorf("the row is %+v", row)
	}
	s = h.daemon()
	h.rebootGuest(vm.ID)
	h.awaitVM(s, "box", "it has the new memory", func(vm banger.VM) bool {
		return isRunning(vm) && vm.Spec.Memory == memory && vm.Next == nil
	})
	if row := h.row(vm.ID); row.Next != nil || row.Spec.Memory != memory {
		t.Errorf("after the boot the row is %+v", row)
	}
}

// TestAnUpdateThatTheHostCannotHold changes nothing.
func TestAnUpdateThatTheHostCannotHold(t *testing.T) {
	h := newHost(t)
	h.opts.Memory = 2 << 30
	s := h.daemon()
	vm, err := s.Create(h.ctx(), h.spec("box"), nil, false, banger.Discard)
	check(t, err)
	memory, idle := int64(4<<30), banger.Timer{Seconds: 60, Action: banger.ActionStop}
	if _, err = s.Update(h.ctx(), "box", banger.Update{Memory: &memory, Idle: &idle}); err == nil {
		t.Error("a VM may have twice the memory of its host")
	}
	if row := h.row(vm.ID); row.Spec.Memory != vm.Spec.Memory || row.Spec.Idle != (banger.Timer{}) {
		t.Errorf("the row is %+v", row)
	}
}
