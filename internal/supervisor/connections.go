package supervisor

import (
	"context"
	"time"

	"banger"
	"banger/internal/wake"
)

// Connections changes what VMs are connected to: forwards, policies and networks.
type Connections struct{ s *Supervisor }

// Connections returns the connections of the VMs.
func (s *Supervisor) Connections() Connections { return Connections{s} }

// Ports lists the listening sockets of a guest and where they can be reached. With probe it asks each of them what it
// speaks, unless the guest is suspended.
func (c Connections) Ports(ctx context.Context, ref string, probe bool) ([]banger.Listener, error) {
	l, err := c.withNetwork(ref)
	if err != nil {
		return nil, err
	}
	vm := l.Snapshot()
	if vm.State == banger.StateSuspended {
		return wake.Listeners(vm), nil
	}
	if vm.State != banger.StateRunning {
		return nil, vm.NotRunning("see the ports of")
	}
	return c.s.shim(l.ID()).Ports(ctx, probe)
}

func (c Connections) withNetwork(ref string) (link, error) {
	m, err := c.s.find(ref)
	if err != nil {
		return link{}, err
	}
	if vm := m.Snapshot(); vm.Spec.Network == banger.NetworkNone {
		return link{}, banger.Errorf(banger.CodeConflict, "VM %s has no network", vm.Name).
			WithHint("create it without --network none")
	}
	return link{m}, nil
}

// AddForward adds a forward to a VM permanently. If the VM runs, the forward works at once. It returns the forward
// with the port that was chosen.
func (c Connections) AddForward(ctx context.Context, ref string, f banger.Forward) (banger.Forward, error) {
	l, err := c.withNetwork(ref)
	if err != nil {
		return f, err
	}
	err = l.change(ctx, func(ctx context.Context) error {
		f, err = l.addForward(ctx, f)
		return err
	})
	return f, err
}

// RemoveForward ends a forward, given with its actual port, and its connections.
func (c Connections) RemoveForward(ctx context.Context, ref string, f banger.Forward) error {
	l, err := c.withNetwork(ref)
	if err != nil {
		return err
	}
	return l.change(ctx, func(ctx context.Context) error { return l.removeForward(ctx, f) })
}

// SetPolicy replaces a VM's policy. When it returns, flows that the new policy forbids are cut.
func (c Connections) SetPolicy(ctx context.Context, ref string, p banger.Policy) (banger.VM, error) {
	if err := p.Check(); err != nil {
		return banger.VM{}, err
	}
	l, err := c.withNetwork(ref)
	if err != nil {
		return banger.VM{}, err
	}
	err = l.change(ctx, func(ctx context.Context) error {
		vm := l.Snapshot()
		next, client := vm, c.s.shim(l.ID())
		next.Spec.Policy = &p
		set := func(context.Context, banger.Policy) error { return nil }
		switch {
		case vm.State.AtRest(), vm.State == banger.StateSuspended:
		case banger.OnBridge(vm.Spec.Network):
			set = l.setBridgePolicy
		default:
			set = client.SetPolicy
		}
		if err := set(ctx, p); err != nil {
			return banger.Errorf(banger.CodeUnavailable, "cannot change the policy of VM %s: %w", vm.Name, err)
		}
		err := l.save(ctx, next)
		if err != nil {
			l.warn("the policy before was not restored", set(context.WithoutCancel(ctx), *vm.Spec.Policy))
		}
		return err
	})
	return l.Snapshot(), err
}

// ConnectNetwork gives a VM at rest another network. With none, it keeps its forwards and its policy for later.
func (c Connections) ConnectNetwork(ctx context.Context, ref, name string) (banger.VM, error) {
	return c.s.alter(ctx, ref, func(ctx context.Context, m *machine) error {
		vm := m.Snapshot()
		if !vm.State.AtRest() {
			return vm.StateError("change the network of", "stop it first: banger stop "+vm.Name)
		}
		spec := vm.Spec
		spec.Network = name
		if name != banger.NetworkNone {
			if err := spec.Normalize(); err != nil {
				return err
			}
		}
		vm.Spec = spec
		return c.s.networks.Use(ctx, name, func() error {
			if err := m.store(ctx, vm); err != nil {
				return err
			}
			m.Update(func(vm *banger.VM) { vm.Spec.Network, vm.Spec.Policy = spec.Network, spec.Policy })
			return nil
		})
	})
}

// denied passes a refusal of the bridge's resolver to the VM's shim, which keeps it.
func (s *Supervisor) denied(id string, d banger.Decision) {
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	if err := s.shim(id).AddRefusal(ctx, d); err != nil {
		s.opts.Log.Warn("a refusal of the network was not recorded", "vm", id, "err", err)
	}
}
