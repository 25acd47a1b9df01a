package supervisor

import (
	"cmp"
	"context"
	"time"

	"banger"
	"banger/internal/parking"
)

// Start boots a VM at rest, or lets a suspended or paused one go on. With cold, a suspended VM boots too. With attach,
// the client starts the main command.
func (s *Supervisor) Start(ctx context.Context, ref string, attach, cold bool, emit banger.Emit) (banger.VM, error) {
	m, err := s.find(ref)
	if err != nil {
		return banger.VM{}, err
	}
	// The host may have less memory or fewer CPUs than before.
	if err := s.checkHost(parking.AtNextBoot(m.Snapshot()), emit); err != nil {
		return banger.VM{}, err
	}
	err = m.change(ctx, func(ctx context.Context) error { return m.start(ctx, attach, cold, emit) })
	return m.Snapshot(), err
}

// Stop shuts a VM down cleanly within grace (0 means that of the VM), and otherwise kills its VMM. It continues when
// ctx ends. It does nothing for a VM at rest.
func (s *Supervisor) Stop(ctx context.Context, ref string, grace time.Duration) (banger.VM, error) {
	return s.finish(ctx, ref, func(ctx context.Context, m *machine) error {
		later{m}.halt()
		return m.stop(ctx, cmp.Or(grace, m.grace()), "stopped by the user")
	})
}

// Restart stops a VM if it runs and starts it again.
func (s *Supervisor) Restart(ctx context.Context, ref string, grace time.Duration,
	emit banger.Emit) (banger.VM, error) {
	if _, err := s.Stop(ctx, ref, grace); err != nil {
		return banger.VM{}, err
	}
	return s.Start(ctx, ref, false, false, emit)
}

// Kill sends a signal to the VM's main command. For signal 9, or if the VM has no main command, it ends the VMM at
// once.
func (s *Supervisor) Kill(ctx context.Context, ref string, signal int) (banger.VM, error) {
	m, err := s.find(ref)
	if err != nil {
		return banger.VM{}, err
	}
	vm := m.Snapshot()
	if vm.State.AtRest() && vm.RestartAt.IsZero() {
		return vm, vm.StateError("kill", "it does not run")
	}
	if signal != 9 && vm.Main != nil {
		if vm.State != banger.StateRunning {
			return vm, vm.StateError("signal", "wait until it runs")
		}
		return vm, m.agent().Signal(ctx, signal)
	}
	m.stopCurrent(ctx)
	return s.finish(ctx, ref, func(ctx context.Context, m *machine) error {
		later{m}.halt()
		return m.kill(ctx, "killed by the user")
	})
}

// Remove deletes a VM permanently. With force, it first kills a VM that is not at rest.
func (s *Supervisor) Remove(ctx context.Context, ref string, force bool) error {
	m, err := s.find(ref)
	if err != nil {
		return err
	}
	if force {
		m.stopCurrent(ctx)
	}
	_, err = s.finish(ctx, m.ID(), func(ctx context.Context, m *machine) error {
		if vm := m.Snapshot(); !vm.State.AtRest() && vm.State != banger.StateSuspended && !force {
			return vm.StateError("remove", "stop it first, or use rm -f")
		}
		later{m}.halt()
		if err := m.kill(ctx, "removed by the user"); err != nil || m.IsGone() {
			return err
		}
		return m.remove()
	})
	return err
}

// finish runs f in the owner of the VM. The end of ctx does not interrupt f.
func (s *Supervisor) finish(ctx context.Context, ref string,
	f func(context.Context, *machine) error) (banger.VM, error) {
	return inOwner(ctx, s, ref, (*machine).do, f)
}

// alter is like finish, but fails while the VM is still being created.
func (s *Supervisor) alter(ctx context.Context, ref string,
	f func(context.Context, *machine) error) (banger.VM, error) {
	return inOwner(ctx, s, ref, (*machine).change, f)
}

// inOwner runs f by run in the owner of a VM.
func inOwner(ctx context.Context, s *Supervisor, ref string,
	run func(*machine, context.Context, func(context.Context) error) error,
	f func(context.Context, *machine) error) (banger.VM, error) {
	m, err := s.find(ref)
	if err != nil {
		return banger.VM{}, err
	}
	err = run(m, ctx, func(context.Context) error { return f(m.ctx, m) })
	return m.Snapshot(), err
}

// Rename gives a VM another name. The guest's host name does not change.
func (s *Supervisor) Rename(ctx context.Context, ref, name string) (banger.VM, error) {
	if err := banger.CheckName(name); err != nil {
		return banger.VM{}, err
	}
	return s.alter(ctx, ref, func(ctx context.Context, m *machine) error {
		vm := m.Snapshot()
		vm.Name = name
		if err := m.store(ctx, vm); err != nil {
			return err
		}
		m.Update(func(v *banger.VM) { v.Name = name })
		if banger.OnBridge(vm.Spec.Network) && vm.Address != "" {
			link{m}.sync(ctx) // the network uses the VM's name
		}
		return nil
	})
}

// Wait returns when the VM is at rest or removed.
func (s *Supervisor) Wait(ctx context.Context, ref string) (banger.VM, error) {
	m, err := s.find(ref)
	if err != nil {
		return banger.VM{}, err
	}
	vm, _, err := m.await(ctx, func(vm banger.VM) bool {
		return vm.State.AtRest() && !vm.Spec.AutoRemove && vm.State != banger.StateCreated
	})
	return vm, err
}

// Prune removes all VMs at rest and returns them. It skips a VM that is still being created, and one that will start
// again.
func (s *Supervisor) Prune(ctx context.Context) ([]banger.VM, error) {
	var removed []banger.VM
	prunable := func(vm banger.VM) bool { return vm.State.AtRest() && vm.RestartAt.IsZero() && vm.ImageDigest != "" }
	for _, vm := range s.List(prunable) {
		if err := s.Remove(ctx, vm.ID, false); err != nil {
			if c := banger.CodeOf(err); c == banger.CodeConflict || c == banger.CodeNotFound {
				continue // the VM was started or removed meanwhile
			}
			return removed, err
		}
		removed = append(removed, vm)
	}
	return removed, nil
}
