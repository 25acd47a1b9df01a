package supervisor

import (
	"context"
	"io"
	"os"
	"slices"
	"time"

	"banger"
	"banger/internal/network"
	"banger/internal/networks"
	"banger/internal/shim"
)

// shimNetwork returns the wanted state of a VM's network, or nil if it has none.
func (m *machine) shimNetwork(vm banger.VM) *shim.Network {
	if vm.Spec.Network == banger.NetworkNone {
		return nil
	}
	n := &shim.Network{MAC: network.MAC(vm.ID), Policy: banger.Policy{Default: banger.Deny},
		Loopback: networks.Loopback(os.Getuid(), m.slot), Owner: uint32(os.Getuid())}
	if vm.Spec.Policy != nil {
		n.Policy = *vm.Spec.Policy
	}
	if banger.OnBridge(vm.Spec.Network) {
		n.Loopback = "" // it has an address of its own
	}
	return n
}

// Connections changes what VMs are connected to: forwards, policies and networks.
type Connections struct{ s *Supervisor }

// Connections returns the connections of the VMs.
func (s *Supervisor) Connections() Connections { return Connections{s} }

// Ports lists the listening sockets of a running guest and where they can be reached.
func (c Connections) Ports(ctx context.Context, ref string) ([]banger.Listener, error) {
	m, err := c.withNetwork(ref)
	if err != nil {
		return nil, err
	}
	vm := m.snapshot()
	if vm.State != banger.StateRunning {
		return nil, stateError("see the ports of", vm, "start it: banger start "+vm.Name)
	}
	return c.s.shim(m.id()).Ports(ctx)
}

func (c Connections) withNetwork(ref string) (*machine, error) {
	m, err := c.s.find(ref)
	if err != nil {
		return nil, err
	}
	if vm := m.snapshot(); vm.Spec.Network == banger.NetworkNone {
		return nil, banger.Errorf(banger.CodeConflict, "VM %s has no network", vm.Name).
			WithHint("create it without --network none")
	}
	return m, nil
}

// AddForward adds a forward to a VM permanently. If the VM runs, the forward works at once. It returns the forward
// with the port that was chosen.
func (c Connections) AddForward(ctx context.Context, ref string, f banger.Forward) (banger.Forward, error) {
	m, err := c.withNetwork(ref)
	if err != nil {
		return f, err
	}
	err = m.change(ctx, func(ctx context.Context) error {
		f, err = m.addForward(ctx, f)
		return err
	})
	return f, err
}

func (m *machine) addForward(ctx context.Context, f banger.Forward) (banger.Forward, error) {
	vm := m.snapshot()
	if err := banger.CheckForwards(append(slices.Clone(vm.Spec.Forwards), f)); err != nil {
		return f, err
	}
	wished, file, err := f, (*os.File)(nil), error(nil)
	if file, f, err = m.s.networks.ListenOne(f); err != nil {
		return f, err
	}
	defer file.Close()
	next := vm
	next.Spec.Forwards = append(slices.Clone(vm.Spec.Forwards), wished)
	if vm.State != banger.StateRunning {
		return wished, m.storeNetwork(ctx, next)
	}
	next.Forwards = append(slices.Clone(vm.Forwards), f)
	if err := m.s.shim(m.id()).AddForward(ctx, f, file); err != nil {
		return f, banger.Errorf(banger.CodeUnavailable, "cannot forward %s to VM %s: %w", f, vm.Name, err)
	}
	if err := m.storeNetwork(ctx, next); err != nil {
		m.s.shim(m.id()).RemoveForward(context.WithoutCancel(ctx), f)
		return f, err
	}
	return f, nil
}

// storeNetwork stores the network settings of next and then makes them visible.
func (m *machine) storeNetwork(ctx context.Context, next banger.VM) error {
	if err := m.store(ctx, next); err != nil {
		return err
	}
	m.update(func(vm *banger.VM) {
		vm.Spec.Forwards, vm.Spec.Policy, vm.Forwards = next.Spec.Forwards, next.Spec.Policy, next.Forwards
	})
	return nil
}

// RemoveForward ends a forward, given with its actual port, and its connections.
func (c Connections) RemoveForward(ctx context.Context, ref string, f banger.Forward) error {
	m, err := c.withNetwork(ref)
	if err != nil {
		return err
	}
	return m.change(ctx, func(ctx context.Context) error { return m.removeForward(ctx, f) })
}

func (m *machine) removeForward(ctx context.Context, f banger.Forward) error {
	vm := m.snapshot()
	list := vm.Forwards
	if vm.State != banger.StateRunning {
		list = vm.Spec.Forwards
	}
	at := slices.Index(list, f)
	if at < 0 {
		return banger.Errorf(banger.CodeNotFound, "VM %s has no forward %s", vm.Name, f).
			WithHint("see: banger port ls %s", vm.Name)
	}
	next := vm
	if vm.State == banger.StateRunning {
		next.Forwards = slices.Delete(slices.Clone(list), at, at+1)
	}
	// The wanted forward may have been for any free port. Both lists have the same order.
	next.Spec.Forwards = slices.Delete(slices.Clone(vm.Spec.Forwards), at, at+1)
	if err := m.storeNetwork(ctx, next); err != nil {
		return err
	}
	if vm.State != banger.StateRunning {
		return nil
	}
	if err := m.s.shim(m.id()).RemoveForward(context.WithoutCancel(ctx), f); err != nil {
		return banger.Errorf(banger.CodeUnavailable,
			"the forward %s will be gone at the next start, but cannot be ended now: %w", f, err)
	}
	return nil
}

// SetPolicy replaces a VM's policy. When it returns, flows that the new policy forbids are cut.
func (c Connections) SetPolicy(ctx context.Context, ref string, p banger.Policy) (banger.VM, error) {
	if err := p.Check(); err != nil {
		return banger.VM{}, err
	}
	m, err := c.withNetwork(ref)
	if err != nil {
		return banger.VM{}, err
	}
	err = m.change(ctx, func(ctx context.Context) error {
		vm := m.snapshot()
		next, client := vm, c.s.shim(m.id())
		next.Spec.Policy = &p
		set := func(context.Context, banger.Policy) error { return nil }
		switch {
		case vm.State.AtRest():
		case banger.OnBridge(vm.Spec.Network):
			set = m.setBridgePolicy
		default:
			set = client.SetPolicy
		}
		if err := set(ctx, p); err != nil {
			return banger.Errorf(banger.CodeUnavailable, "cannot change the policy of VM %s: %w", vm.Name, err)
		}
		err := m.storeNetwork(ctx, next)
		if err != nil {
			set(context.WithoutCancel(ctx), *vm.Spec.Policy)
		}
		return err
	})
	return m.snapshot(), err
}

// Denials writes what the policy has refused since the VM's last start, as lines of JSON: the last tail ones (all
// that are kept if tail is negative) and, with follow, new ones until the VM or ctx ends.
func (c Connections) Denials(ctx context.Context, ref string, tail int, follow bool, w io.Writer) error {
	m, err := c.withNetwork(ref)
	if err != nil {
		return err
	}
	client := c.s.shim(m.id())
	if !m.snapshot().State.AtRest() {
		if err := client.Denials(ctx, tail, follow, w); err == nil || ctx.Err() != nil {
			return nil
		}
	}
	return shim.ReadDenials(client.Dir, tail, w)
}

// ConnectNetwork gives a VM at rest another network.
func (c Connections) ConnectNetwork(ctx context.Context, ref, name string) (banger.VM, error) {
	return c.s.alter(ctx, ref, func(ctx context.Context, m *machine) error {
		vm := m.snapshot()
		if !vm.State.AtRest() {
			return stateError("change the network of", vm, "stop it first: banger stop "+vm.Name)
		}
		spec := vm.Spec
		spec.Network = name
		if err := spec.Normalize(); err != nil {
			return err
		}
		vm.Spec = spec
		return c.s.networks.Use(ctx, name, func() error {
			if err := m.store(ctx, vm); err != nil {
				return err
			}
			m.update(func(vm *banger.VM) { vm.Spec.Network, vm.Spec.Policy = spec.Network, spec.Policy })
			return nil
		})
	})
}

// leaveNetwork records that the VM no longer runs, and frees its network resources on the host.
func (m *machine) leaveNetwork() {
	m.setNetwork("", nil)
	if banger.OnBridge(m.snapshot().Spec.Network) {
		m.s.networks.Sync(context.WithoutCancel(m.ctx)) // on an error, the bridge tries again
	}
}

// setBridgePolicy puts a policy in force. When it returns, flows that p forbids have ended. On an error the old
// policy stays in force.
func (m *machine) setBridgePolicy(ctx context.Context, p banger.Policy) error {
	old := m.snapshot().Spec.Policy
	m.update(func(vm *banger.VM) { vm.Spec.Policy = &p })
	err := m.s.networks.Sync(ctx)
	if err != nil {
		m.update(func(vm *banger.VM) { vm.Spec.Policy = old })
		m.s.networks.Sync(context.WithoutCancel(ctx))
	}
	return err
}

// denied passes a refusal of the bridge's resolver to the VM's shim, which keeps it.
func (s *Supervisor) denied(id string, d banger.Denial) {
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	s.shim(id).AddDenial(ctx, d)
}

// setNetwork sets the address and forwards that are in force while the VM runs.
func (m *machine) setNetwork(address string, forwards []banger.Forward) {
	m.update(func(vm *banger.VM) { vm.Address, vm.Forwards = address, forwards })
}
