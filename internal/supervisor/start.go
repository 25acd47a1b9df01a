package supervisor

import (
	"context"
	"time"

	"banger"
	"banger/internal/launch"
	"banger/internal/parking"
	"banger/internal/shim"
)

// start boots the VM, or lets a suspended or paused one go on. With cold, a suspended VM boots from its disk and loses
// its memory. With attach, a client starts the main command. After a failure no process is left, and the VM has failed
// with the reason.
func (m *machine) start(ctx context.Context, attach, cold bool, emit banger.Emit) error {
	switch vm := m.Snapshot(); {
	case vm.State == banger.StateSuspended && cold:
		if err := m.kill(ctx, "started without its memory"); err != nil {
			return err
		}
	case vm.State == banger.StateSuspended:
		return sleeper{m}.wake(ctx, emit)
	case vm.State == banger.StatePaused:
		return sleeper{m}.unpause(ctx)
	case !vm.State.AtRest():
		return vm.StateError("start", "see: banger ps")
	}
	later{m}.ask()
	defer func() { m.plans.asked = false }()
	return m.startNow(ctx, attach, emit)
}

// startNow is start for a VM that has no VMM.
func (m *machine) startNow(ctx context.Context, attach bool, emit banger.Emit) error {
	if err := m.s.branches.Unfold(ctx, owned{m}, emit); err != nil {
		return err
	}
	boot := func(ctx context.Context, b launch.Start) (late string, err error) { return b.Boot(ctx) }
	return m.startBy(ctx, emit, boot, func(ctx context.Context) error { return mainCommand{m}.start(ctx, attach) })
}

// startBy starts the VM by boot, and then its main command by main.
func (m *machine) startBy(ctx context.Context, emit banger.Emit,
	boot func(context.Context, launch.Start) (late string, err error), main func(context.Context) error) error {
	vm := m.Snapshot()
	m.Update(func(vm *banger.VM) {
		vm.ExitCode, vm.StartedAt, vm.Spec, vm.Next = nil, time.Time{}, parking.AtNextBoot(*vm), nil
		vm.Fresh, vm.Start, vm.Restoring = false, "", ""
	})
	mainCommand{m}.setSeen(false)
	m.mainDone = nil
	if err := m.setState(banger.StateStarting, ""); err != nil {
		return err
	}
	b := m.launch(emit)
	b.Fresh = vm.Fresh
	late, err := boot(ctx, b)
	if err == nil {
		m.Update(b.Watch.Note)
		err = m.setState(banger.StateRunning, late)
	}
	if err != nil {
		reason := err.Error()
		if ctx.Err() != nil { // tested before the VM's removal with --rm, which also ends ctx
			reason = "the start was canceled"
			err = banger.Errorf(banger.CodeCanceled, "the start of VM %s was canceled", vm.Name)
		}
		m.log.Info("the VM did not start", "reason", reason)
		if vm.Spec.AutoRemove {
			m.warn("the VM was not killed", m.kill(ctx, reason))
		} else { // such a VM fails without the state stopping
			m.endVMM(ctx, banger.StateStarting)
		}
		m.leaveGroup()
		m.s.dirs.CleanRun(m.ID())
		if !m.IsGone() {
			link{m}.leave()
			m.Update(func(vm *banger.VM) { vm.ExitCode = new(int); *vm.ExitCode = failedCode })
			later{m}.plan(true)
			m.warn("the failure was not stored; it is stored again", m.setState(banger.StateFailed, reason))
		}
		return err
	}
	m.log.Info("the VM runs", "name", vm.Name, "vmm", m.Snapshot().VMM)
	emit(banger.Event{Stage: "boot", Text: vm.Name + " is running", Done: true})
	return main(ctx)
}

// launch returns a start of the VM as it is now.
func (m *machine) launch(emit banger.Emit) launch.Start {
	return launch.Start{Launcher: m.s.launcher, Machine: launched{m}, VM: m.Snapshot(), UID: m.uid(),
		Shim: m.s.shim(m.ID()), Agent: m.agent(), Life: m.ctx, Log: m.log, Watch: launch.NewStopwatch(), Emit: emit}
}

// launched is what package launch needs of a machine.
type launched struct{ m *machine }

func (l launched) Snapshot() banger.VM            { return l.m.Snapshot() }
func (l launched) Update(change func(*banger.VM)) { l.m.Update(change) }
func (l launched) Ended() <-chan shim.Status      { return l.m.ended }
func (l launched) Down()                          { l.m.alive = false }
func (l launched) Up() {
	l.m.alive = true
	l.m.s.wg.Go(l.m.watch)
}

// watch reports the end of the VMM to the owner, once per start.
func (m *machine) watch() {
	st, err := m.s.shim(m.ID()).Watch(m.ctx)
	if m.ctx.Err() != nil {
		return
	}
	if err != nil {
		st = m.s.shim(m.ID()).Lost(m.s.rebooted, err)
	}
	select {
	case m.ended <- st:
	case <-m.ctx.Done():
	}
}
