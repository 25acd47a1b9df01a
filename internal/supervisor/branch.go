package supervisor

import (
	"context"
	"errors"

	"banger"
	"banger/internal/branch"
	"banger/internal/launch"
	"banger/internal/shim"
)

// Snapshots returns the snapshots of the VMs.
func (s *Supervisor) Snapshots() *branch.Branches { return s.branches }

// branching is what package branch needs of the VMs.
type branching struct{ *Supervisor }

func (s branching) Own(ctx context.Context, ref string,
	f func(context.Context, branch.Machine) error) (banger.VM, error) {
	return s.alter(ctx, ref, func(ctx context.Context, m *machine) error { return f(ctx, owned{m}) })
}

// owned is what package branch needs of a machine.
type owned struct{ *machine }

func (m owned) Shim() shim.Client { return m.s.shim(m.ID()) }

func (m owned) Change(ctx context.Context, change func(*banger.VM)) error {
	vm := m.Snapshot()
	change(&vm)
	if err := m.store(ctx, vm); err != nil {
		return err
	}
	m.Update(change)
	return nil
}

func (m owned) Pause(ctx context.Context) error   { return sleeper(m).pause(ctx) }
func (m owned) Suspend(ctx context.Context) error { return sleeper(m).suspend(ctx) }

func (m owned) Wake(ctx context.Context, emit banger.Emit) error {
	if err := sleeper(m).matchMemory(ctx); err != nil {
		return err
	}
	return sleeper(m).wake(ctx, emit)
}

// Rest ends the VM at once. Neither its restart policy nor --rm is about such an end.
func (m owned) Rest(ctx context.Context, reason string) error {
	defer m.keep(true)()
	return m.kill(ctx, reason)
}

// keep lets neither the restart policy nor --rm act when the VM ends, until undo is called. It does nothing if on is
// not set.
func (m *machine) keep(on bool) (undo func()) {
	if !on {
		return func() {}
	}
	auto := m.Snapshot().Spec.AutoRemove
	m.plans.asked = true
	m.Update(func(vm *banger.VM) { vm.Spec.AutoRemove = false })
	return func() {
		m.plans.asked = false
		m.Update(func(vm *banger.VM) { vm.Spec.AutoRemove = auto })
	}
}

func (s branching) Fork(ctx context.Context, vm banger.VM, from branch.Source, emit banger.Emit) (_ banger.VM,
	err error) {
	if err := s.checkHost(vm.Spec, emit); err != nil {
		return vm, err
	}
	m, err := s.insert(ctx, vm)
	if err != nil {
		return vm, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.discard())
		}
	}()
	emit(banger.Event{ID: m.ID()})
	if err := from.Make(ctx, m.Snapshot()); err != nil {
		return vm, err
	}
	if err := s.dirs.Sync(m.ID()); err != nil {
		return vm, err
	}
	if err := m.do(ctx, func(ctx context.Context) error { return m.fork(ctx, from, emit) }); err != nil {
		return vm, err
	}
	return m.Snapshot(), m.do(ctx, m.commit)
}

// fork starts the VM from a source.
func (m *machine) fork(ctx context.Context, from branch.Source, emit banger.Emit) error {
	saved, err := from.Saved(ctx, m.Snapshot())
	if err != nil {
		return err
	}
	boot := func(ctx context.Context, b launch.Start) (late string, err error) {
		b.Renew = true
		if saved == nil {
			return b.Boot(ctx)
		}
		defer saved.Close()
		return b.Fork(ctx, m.Snapshot().Snapshot, saved)
	}
	goOn := func(ctx context.Context) error {
		if saved == nil {
			return mainCommand{m}.start(ctx, false)
		}
		mainCommand{m}.setSeen(true)
		mainCommand{m}.watch()
		return nil
	}
	later{m}.ask()
	defer func() { m.plans.asked = false }()
	return m.startBy(ctx, emit, boot, goOn)
}
