package supervisor

import (
	"context"
	"time"

	"banger"
	"banger/internal/launch"
	"banger/internal/parking"
	"banger/internal/vmm"
)

// Pause stops the CPUs of a running VM. Its memory stays where it is.
func (s *Supervisor) Pause(ctx context.Context, ref string) (banger.VM, error) {
	return s.alter(ctx, ref, func(ctx context.Context, m *machine) error {
		if vm := m.snapshot(); vm.State != banger.StateRunning {
			return vm.StateError("pause", "only a running VM can be paused; see: banger ps -a")
		}
		if err := m.s.shim(m.id()).Pause(ctx); err != nil {
			return banger.Errorf(banger.CodeUnavailable, "VM %s was not paused: %w", m.snapshot().Name, err)
		}
		return m.setState(banger.StatePaused, "")
	})
}

// Suspend writes the memory of a VM to disk and ends its VMM. The guest's commands are frozen meanwhile. If Suspend
// fails, the VM goes on. It does nothing for a suspended VM.
func (s *Supervisor) Suspend(ctx context.Context, ref string) (banger.VM, error) {
	return s.alter(ctx, ref, func(ctx context.Context, m *machine) error { return sleeper{m}.suspend(ctx) })
}

// Resume lets a paused or suspended VM go on. It does nothing for a running VM.
func (s *Supervisor) Resume(ctx context.Context, ref string, emit banger.Emit) (banger.VM, error) {
	m, err := s.find(ref)
	if err != nil {
		return banger.VM{}, err
	}
	if err := s.checkHost(m.snapshot().Spec, emit); err != nil {
		return banger.VM{}, err
	}
	err = m.change(ctx, func(ctx context.Context) error {
		switch vm := m.snapshot(); vm.State {
		case banger.StateRunning:
			return nil
		case banger.StatePaused:
			return sleeper{m}.unpause(ctx)
		case banger.StateSuspended:
			return sleeper{m}.wake(ctx, emit)
		default:
			return vm.StateError("resume", "start it: banger start "+vm.Name)
		}
	})
	return m.snapshot(), err
}

// sleeper is a machine that stands still and goes on.
type sleeper struct{ *machine }

func (m sleeper) unpause(ctx context.Context) error {
	if err := m.s.shim(m.id()).Resume(ctx); err != nil {
		return banger.Errorf(banger.CodeUnavailable, "VM %s was not resumed: %w", m.snapshot().Name, err)
	}
	return m.setState(banger.StateRunning, "")
}

// suspend is for the owner.
func (m sleeper) suspend(ctx context.Context) error {
	vm := m.snapshot()
	switch {
	case vm.State == banger.StateSuspended:
		return nil
	case vm.Spec.Nested != "":
		return banger.Errorf(banger.CodeConflict, "VM %s cannot be suspended: %w", vm.Name, vmm.ErrNestedSnapshot).
			WithHint("stop it instead: banger stop %s", vm.Name)
	case vm.State == banger.StatePaused: // its agent must answer
		if err := m.unpause(ctx); err != nil {
			return err
		}
	case vm.State != banger.StateRunning:
		return vm.StateError("suspend", "only a running VM can be suspended; see: banger ps -a")
	}
	m.warn("the state suspending was not stored", m.setState(banger.StateSuspending, ""))
	return m.suspendNow(ctx)
}

// suspendNow has the shim suspend the VM. It may do so again after the death of a daemon.
func (m sleeper) suspendNow(ctx context.Context) error {
	vm := m.snapshot()
	err := m.s.shim(m.id()).Suspend(ctx)
	if m.ctx.Err() != nil {
		return m.closedError() // the shim goes on, and the next daemon looks what has become of it
	}
	if _, dead := m.s.shim(m.id()).Status(ctx); err != nil && dead == nil {
		m.warn("the state running was not stored", m.setState(banger.StateRunning, ""))
		code := banger.CodeUnavailable
		if banger.CodeOf(err) == banger.CodeDisk {
			code = banger.CodeDisk
		}
		return banger.Errorf(code, "VM %s was not suspended, and goes on: %w", vm.Name, err)
	}
	st, endErr := m.awaitEnd(m.ctx)
	if endErr != nil {
		return endErr
	}
	m.onExit(st.Exit, "")
	if now := m.snapshot(); now.State != banger.StateSuspended {
		return banger.Errorf(banger.CodeUnavailable, "VM %s was not suspended: %s", vm.Name, now.Reason)
	}
	return nil
}

// isSuspended reports whether the VM has a whole snapshot. There is one only while the VM has not run since.
func (m sleeper) isSuspended() bool { return vmm.HasSnapshot(m.s.dirs.VM(m.id())) }

// onSuspended records that the VMM has ended and left a snapshot.
func (m sleeper) onSuspended() {
	mainCommand{m.machine}.takeExit() // end the wait for it; the agent tells its end again
	m.leaveGroup()
	link{m.machine}.leave()
	m.log.Info("the VM is suspended")
	m.cleanSnapshots()
	m.warn("the suspension was not stored; it is stored again", m.setState(banger.StateSuspended, ""))
	m.s.dirs.CleanRun(m.id())
}

// cleanSnapshots removes what was left of snapshots when the VMM ended, but not a whole one.
func (m sleeper) cleanSnapshots() {
	m.warn("what was left of a snapshot was not removed", vmm.RemoveUnfinished(m.s.dirs.VM(m.id())))
}

// forgetMemory removes the memory of a suspended VM, for good. Its disk was synced before its commands were frozen.
func (m sleeper) forgetMemory() error {
	err := vmm.RemoveSnapshot(m.s.dirs.VM(m.id()))
	if err != nil {
		return banger.Errorf(banger.CodeUnavailable, "cannot remove the memory of VM %s: %w", m.snapshot().Name, err)
	}
	return nil
}

// wake lets a suspended VM go on. If that fails before its guest has run, it stays suspended.
func (m sleeper) wake(ctx context.Context, emit banger.Emit) error {
	vm := m.snapshot()
	if err := m.setState(banger.StateResuming, ""); err != nil {
		return err
	}
	emit(banger.Event{Stage: "resume", Text: "resuming " + vm.Name})
	b := m.launch(emit)
	key, err := b.Restore(ctx)
	return m.goOn(ctx, b, key, err)
}

// goOn completes a resume whose VMM was started, unless err says that it was not.
func (m sleeper) goOn(ctx context.Context, b launch.Start, hostKey string, err error) error {
	if err == nil {
		err = b.Welcome(ctx, hostKey)
	}
	if err == nil {
		m.update(func(vm *banger.VM) {
			vm.Timings = launch.KeepPreparation(vm.Timings, b.Watch.Timings)
			vm.Expired = parking.Expired(*vm, time.Now())
		})
		err = m.setState(banger.StateRunning, "")
	}
	if err == nil {
		m.log.Info("the VM goes on", "name", b.VM.Name)
		b.Emit(banger.Event{Stage: "resume", Text: b.VM.Name + " is running", Done: true})
		if b.VM.Main != nil {
			mainCommand{m.machine}.watch()
		}
		return nil
	}
	if m.ctx.Err() != nil {
		return m.closedError() // the next daemon completes it
	}
	if ctx.Err() != nil {
		err = banger.Errorf(banger.CodeCanceled, "the resume of VM %s was canceled", b.VM.Name)
	}
	m.endVMM(ctx, banger.StateStarting)
	if m.isSuspended() {
		m.onSuspended()
		return banger.Errorf(banger.CodeUnavailable, "VM %s cannot resume: %w", b.VM.Name, err).
			WithHint("without its memory, from its disk: banger start --cold %s", b.VM.Name)
	}
	m.onEnd("it did not resume: "+err.Error(), failedCode, true)
	return err
}
