package supervisor

import (
	"context"
	"errors"
	"time"

	"banger"
	"banger/internal/launch"
	"banger/internal/parking"
	"banger/internal/secret"
	"banger/internal/vmm"
	"banger/internal/wake"
)

// Pause stops the CPUs of a running VM. Its memory stays where it is.
func (s *Supervisor) Pause(ctx context.Context, ref string) (banger.VM, error) {
	return s.alter(ctx, ref, func(ctx context.Context, m *machine) error { return sleeper{m}.pause(ctx) })
}

// Suspend writes the memory of a VM to disk and ends its VMM. The guest's commands are frozen meanwhile. If Suspend
// fails, the VM goes on. It does nothing for a suspended VM. withSecrets allows that the VM has secrets.
func (s *Supervisor) Suspend(ctx context.Context, ref string, withSecrets bool) (banger.VM, error) {
	return s.alter(ctx, ref, func(ctx context.Context, m *machine) error {
		vm := m.Snapshot()
		if err := secret.Guard(vm, "suspend", withSecrets || vm.State == banger.StateSuspended); err != nil {
			return err
		}
		return sleeper{m}.suspend(ctx)
	})
}

// Resume lets a paused or suspended VM go on. It does nothing for a running VM.
func (s *Supervisor) Resume(ctx context.Context, ref string, emit banger.Emit) (banger.VM, error) {
	m, err := s.find(ref)
	if err != nil {
		return banger.VM{}, err
	}
	if err := s.checkHost(m.Snapshot().Spec, emit); err != nil {
		return banger.VM{}, err
	}
	err = m.change(ctx, func(ctx context.Context) error {
		switch vm := m.Snapshot(); vm.State {
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
	return m.Snapshot(), err
}

// sleeper is a machine that stands still and goes on.
type sleeper struct{ *machine }

func (m sleeper) pause(ctx context.Context) error {
	if vm := m.Snapshot(); vm.State != banger.StateRunning {
		return vm.StateError("pause", "only a running VM can be paused; see: banger ps -a")
	}
	if err := m.s.shim(m.ID()).Pause(ctx); err != nil {
		return banger.Errorf(banger.CodeUnavailable, "VM %s was not paused: %w", m.Snapshot().Name, err)
	}
	return m.setState(banger.StatePaused, "")
}

func (m sleeper) unpause(ctx context.Context) error {
	if err := m.s.shim(m.ID()).Resume(ctx); err != nil {
		return banger.Errorf(banger.CodeUnavailable, "VM %s was not resumed: %w", m.Snapshot().Name, err)
	}
	return m.setState(banger.StateRunning, "")
}

// suspend is for the owner.
func (m sleeper) suspend(ctx context.Context) error {
	vm := m.Snapshot()
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
	vm := m.Snapshot()
	sockets, err := m.s.shim(m.ID()).Suspend(ctx)
	m.s.doors.Leave(m.ID(), sockets)
	if m.ctx.Err() != nil {
		return m.closedError() // the shim goes on, and the next daemon looks what has become of it
	}
	silent := err
	if err != nil {
		_, silent = m.s.shim(m.ID()).Status(ctx)
	}
	if err != nil && silent == nil {
		m.warn("the state running was not stored", m.setState(banger.StateRunning, ""))
		if banger.CodeOf(err) == banger.CodeDisk {
			return banger.Errorf(banger.CodeDisk, "VM %s was not suspended, and goes on: the disk of %s is full", vm.Name,
				m.s.opts.StateDir).WithHint("see what takes room: banger system df")
		}
		return banger.Errorf(banger.CodeUnavailable, "VM %s was not suspended, and goes on: %w", vm.Name, err)
	}
	st, endErr := m.awaitEnd(m.ctx)
	if endErr != nil {
		return endErr
	}
	m.onExit(st.Exit, "")
	if now := m.Snapshot(); now.State != banger.StateSuspended {
		return banger.Errorf(banger.CodeUnavailable, "VM %s was not suspended: %s", vm.Name, now.Reason)
	}
	return nil
}

// isSuspended reports whether the VM has a whole snapshot. There is one only while the VM has not run since.
func (m sleeper) isSuspended() bool { return vmm.HasSnapshot(m.s.dirs.VM(m.ID())) }

// onSuspended records that the VMM has ended and left a snapshot. The VM keeps its address and its ports.
func (m sleeper) onSuspended() {
	mainCommand(m).takeExit() // end the wait for it; the agent tells its end again
	m.leaveGroup()
	m.log.Info("the VM is suspended")
	m.cleanSnapshots()
	problem := m.openDoor()
	m.warn("the suspension was not stored; it is stored again", m.setState(banger.StateSuspended, problem))
	m.s.dirs.CleanRun(m.ID())
}

// openDoor waits for connections to the suspended VM, which wake it. It says why a port is not open.
func (m sleeper) openDoor() (problem string) {
	if m.Snapshot().Listeners == nil {
		list, err := m.s.shim(m.ID()).LastListeners()
		m.warn("the ports of the suspended VM are not known", err)
		m.Update(func(vm *banger.VM) { vm.Listeners = wake.Bound(list, *vm) })
	}
	return m.s.doors.Open(m.Snapshot())
}

// cleanSnapshots removes what was left of snapshots when the VMM ended, but not the whole one of a suspended VM.
func (m sleeper) cleanSnapshots() {
	err := errors.Join(vmm.RemoveUnfinished(m.s.dirs.VM(m.ID())), m.s.branches.Tidy(m.Snapshot()))
	m.warn("what was left of a snapshot was not removed", err)
}

// forgetMemory removes the memory of a suspended VM, for good. Its disk was synced before its commands were frozen.
func (m sleeper) forgetMemory() error {
	if err := vmm.RemoveSnapshot(m.s.dirs.VM(m.ID())); err != nil {
		return banger.Errorf(banger.CodeUnavailable, "cannot remove the memory of VM %s: %w", m.Snapshot().Name, err)
	}
	return nil
}

// resumeTime is the maximum time of a resume. The last part of it is that of a boot.
const resumeTime = 5 * time.Minute

// wake lets a suspended VM go on. If that fails before its guest has run, it stays suspended. Neither the end of ctx
// nor that of the daemon interrupts it, because the VM has lost its memory if it ends on the way; only a kill does.
func (m sleeper) wake(ctx context.Context, emit banger.Emit) error {
	vm := m.Snapshot()
	sockets, err := m.s.doors.Sockets(vm)
	if err == nil {
		defer sockets.Close()
		err = m.setState(banger.StateResuming, "")
	}
	if err != nil {
		m.openDoor()
		return banger.Errorf(banger.CodeOf(err), "VM %s cannot resume: %w", vm.Name, err)
	}
	emit(banger.Event{Stage: "resume", Text: "resuming " + vm.Name})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resumeTime)
	defer cancel()
	m.setInterrupt(cancel)
	b := m.launch(emit)
	b.Sockets = sockets
	key, err := b.Restore(ctx)
	return m.goOn(ctx, b, key, err)
}

// goOn completes a resume whose VMM was started, unless err says that it was not.
func (m sleeper) goOn(ctx context.Context, b launch.Start, hostKey string, err error) error {
	if err == nil {
		err = b.Welcome(ctx, hostKey)
	}
	if err == nil {
		m.warn("connections that have waited were not passed on", m.s.doors.Pass(ctx, m.ID(), m.s.shim(m.ID())))
		m.Update(func(vm *banger.VM) {
			vm.Timings = launch.KeepPreparation(vm.Timings, b.Watch.Timings)
			vm.Expired = parking.Expired(*vm, time.Now())
			vm.Listeners = nil
		})
		if err := m.setState(banger.StateRunning, ""); err != nil { // the guest runs all the same
			m.warn("the resume was not stored; it is stored again", err)
			m.Update(func(vm *banger.VM) { vm.State = banger.StateRunning })
		}
		m.log.Info("the VM goes on", "name", b.VM.Name)
		b.Emit(banger.Event{Stage: "resume", Text: b.VM.Name + " is running", Done: true})
		mainCommand(m).watch()
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
	m.onEnd(err.Error(), failedCode, true)
	return err
}
