package supervisor

import (
	"context"
	"os"
	"slices"

	"banger"
)

// link is a machine's connection to its network.
type link struct{ *machine }

func (l link) addForward(ctx context.Context, f banger.Forward) (banger.Forward, error) {
	vm := l.Snapshot()
	if err := banger.CheckForwards(append(slices.Clone(vm.Spec.Forwards), f)); err != nil {
		return f, err
	}
	wanted, file, err := f, (*os.File)(nil), error(nil)
	if file, f, err = l.s.networks.ListenOne(f); err != nil {
		return f, err
	}
	defer file.Close()
	next := vm
	next.Spec.Forwards = append(slices.Clone(vm.Spec.Forwards), wanted)
	end := l.end()
	if end == nil {
		return wanted, l.save(ctx, next)
	}
	next.Forwards = append(slices.Clone(vm.Forwards), f)
	if err := end.AddForward(ctx, f, file); err != nil {
		return f, banger.Errorf(banger.CodeUnavailable, "cannot forward %s to VM %s: %w", f, vm.Name, err)
	}
	if err := l.save(ctx, next); err != nil {
		l.warn("the new forward was not taken back", end.RemoveForward(context.WithoutCancel(ctx), f))
		return f, err
	}
	return f, nil
}

// forwarder has the sockets of forwards.
type forwarder interface {
	AddForward(ctx context.Context, f banger.Forward, socket *os.File) error
	RemoveForward(ctx context.Context, f banger.Forward) error
}

// end returns what has the sockets of the VM's forwards: its shim, its door, or nil if they are not open.
func (l link) end() forwarder {
	switch vm := l.Snapshot(); {
	case vm.State.Lives():
		return l.s.shim(l.ID())
	case vm.State == banger.StateSuspended && len(vm.Forwards) == len(vm.Spec.Forwards):
		return l.s.doors.Side(l.ID())
	}
	return nil
}

// save stores the network settings of next and then makes them visible.
func (l link) save(ctx context.Context, next banger.VM) error {
	if err := l.store(ctx, next); err != nil {
		return err
	}
	l.Update(func(vm *banger.VM) {
		vm.Spec.Forwards, vm.Spec.Policy, vm.Forwards = next.Spec.Forwards, next.Spec.Policy, next.Forwards
	})
	return nil
}

func (l link) removeForward(ctx context.Context, f banger.Forward) error {
	vm, end := l.Snapshot(), l.end()
	list := vm.Forwards
	if end == nil {
		list = vm.Spec.Forwards
	}
	at := slices.Index(list, f)
	if at < 0 {
		return banger.Errorf(banger.CodeNotFound, "VM %s has no forward %s", vm.Name, f).
			WithHint("see: banger port ls %s", vm.Name)
	}
	next := vm
	if end != nil {
		next.Forwards = slices.Delete(slices.Clone(list), at, at+1)
	}
	// The wanted forward may have been for any free port. Both lists have the same order.
	next.Spec.Forwards = slices.Delete(slices.Clone(vm.Spec.Forwards), at, at+1)
	if err := l.save(ctx, next); err != nil {
		return err
	}
	if end == nil {
		return nil
	}
	if err := end.RemoveForward(context.WithoutCancel(ctx), f); err != nil {
		return banger.Errorf(banger.CodeUnavailable,
			"the forward %s will be gone at the next start, but cannot be ended now: %w", f, err)
	}
	return nil
}

// leave records that the VM no longer runs, and frees its network resources on the host.
func (l link) leave() {
	l.s.doors.Close(l.ID())
	l.set("", nil)
	if banger.OnBridge(l.Snapshot().Spec.Network) {
		l.sync(l.ctx)
	}
}

// setBridgePolicy puts a policy in force. When it returns, flows that p forbids have ended. On an error the old policy
// stays in force.
func (l link) setBridgePolicy(ctx context.Context, p banger.Policy) error {
	old := l.Snapshot().Spec.Policy
	l.Update(func(vm *banger.VM) { vm.Spec.Policy = &p })
	err := l.s.networks.Sync(ctx)
	if err != nil {
		l.Update(func(vm *banger.VM) { vm.Spec.Policy = old })
		l.sync(ctx)
	}
	return err
}

// set sets the address and forwards that are in force while the VM runs.
func (l link) set(address string, forwards []banger.Forward) {
	l.Update(func(vm *banger.VM) { vm.Address, vm.Forwards, vm.Listeners = address, forwards, nil })
}

// sync puts the VM's network in force on the host, even if ctx has ended. After an error the bridge tries again.
func (l link) sync(ctx context.Context) {
	l.warn("the network was not brought up to date; it is tried again", l.s.networks.Sync(context.WithoutCancel(ctx)))
}
