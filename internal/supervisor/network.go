package supervisor

import (
	"context"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"banger"
	"banger/internal/guest"
	"banger/internal/network"
	"banger/internal/shim"
)

// loopback returns the address of 127.0.0.0/8 that belongs to the VM in a slot, or
// "" when there are too many. The user's number is in it, so that the daemons of
// several users rarely want the same.
func loopback(uid, slot int) string {
	const perBlock = 254
	if slot < 0 || slot >= 256*perBlock {
		return ""
	}
	return netip.AddrFrom4([4]byte{127, byte(64 + uid%128), byte(slot / perBlock), byte(1 + slot%perBlock)}).String()
}

// shimNetwork is the wished state of a VM's network.
func (m *machine) shimNetwork(vm banger.VM) *shim.Network {
	if vm.Spec.Network == banger.NetworkNone {
		return nil
	}
	n := &shim.Network{MAC: network.MAC(vm.ID), Policy: banger.Policy{Default: banger.Deny}, Loopback: loopback(os.Getuid(), m.slot), Owner: uint32(os.Getuid())}
	if vm.Spec.Policy != nil {
		n.Policy = *vm.Spec.Policy
	}
	if banger.OnBridge(vm.Spec.Network) {
		n.Loopback = "" // it has an address
	}
	return n
}

// guestNetwork is what the agent is told of it.
func (m *machine) guestNetwork(ctx context.Context, vm banger.VM) (*guest.Network, error) {
	switch {
	case vm.Spec.Network == banger.NetworkNone:
		return nil, nil
	case banger.OnBridge(vm.Spec.Network):
		return m.s.bridgedGuest(ctx, vm)
	}
	return &guest.Network{Address: netip.PrefixFrom(network.UserGuest, network.UserSubnet.Bits()).String(),
		Gateway: network.UserGateway.String(), DNS: []string{network.UserDNS.String()},
		Search: network.SearchDomains(network.ResolvConf), MTU: network.UserMTU}, nil
}

// sockets are the host's ends of forwards, in their order.
type sockets struct {
	forwards []banger.Forward // with the ports that were free
	files    []*os.File
}

func (s *sockets) close() {
	for _, f := range s.files {
		f.Close()
	}
}

// listen opens all or none. It is the daemon that listens, so that it is known
// before the VM starts whether a port is taken.
func (s *Supervisor) listen(wanted []banger.Forward) (*sockets, error) {
	o := &sockets{}
	for _, f := range wanted {
		file, bound, err := s.listenOne(f)
		if err != nil {
			o.close()
			return nil, err
		}
		o.files, o.forwards = append(o.files, file), append(o.forwards, bound)
	}
	return o, nil
}

func (s *Supervisor) listenOne(f banger.Forward) (*os.File, banger.Forward, error) {
	for _, vm := range s.List(func(vm banger.VM) bool { return len(vm.Forwards) > 0 }) {
		if slices.ContainsFunc(vm.Forwards, f.SameHostPort) {
			return nil, f, banger.Errorf(banger.CodeConflict, "port %s/%s of the host is forwarded to VM %s", f.Host(), f.Protocol, vm.Name).
				WithHint("choose another, or 0 for any that is free")
		}
	}
	file, err := network.Listen(f)
	if err != nil {
		return nil, f, err
	}
	at, err := network.Bound(file)
	if err != nil {
		file.Close()
		return nil, f, err
	}
	f.HostPort = at.Port()
	return file, f, nil
}

// checkPorts finds out early that a port is taken.
func (s *Supervisor) checkPorts(wanted []banger.Forward) error {
	o, err := s.listen(wanted)
	if err == nil {
		o.close()
	}
	return err
}

// exposed returns forwards of free ports to all that the image declares and the
// user has not named.
func exposed(img banger.Image, named []banger.Forward) ([]banger.Forward, error) {
	var list []banger.Forward
	for _, e := range img.Config.Exposed {
		f, err := banger.ParseForward(e)
		if err != nil || strings.Contains(e, ":") {
			return nil, banger.Errorf(banger.CodeBadImage, "the image exposes %q, which is no port", e).WithHint("name the ports yourself: -p instead of -P")
		}
		if !slices.ContainsFunc(named, func(n banger.Forward) bool { return n.GuestPort == f.GuestPort && n.Protocol == f.Protocol }) {
			list = append(list, f)
		}
	}
	return list, banger.CheckForwards(append(slices.Clone(named), list...))
}

// Ports says what listens in a running guest and where it is reached.
func (s *Supervisor) Ports(ctx context.Context, ref string) ([]banger.Listener, error) {
	m, err := s.withNetwork(ref)
	if err != nil {
		return nil, err
	}
	vm := m.snapshot()
	if vm.State != banger.StateRunning {
		return nil, stateError("see the ports of", vm, "start it: banger start "+vm.Name)
	}
	return s.shim(m.id()).Ports(ctx)
}

func (s *Supervisor) withNetwork(ref string) (*machine, error) {
	m, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	if vm := m.snapshot(); vm.Spec.Network == banger.NetworkNone {
		return nil, banger.Errorf(banger.CodeConflict, "VM %s has no network", vm.Name).WithHint("create it without --network none")
	}
	return m, nil
}

// AddForward adds a forward to a VM for good; it is in force at once when the VM
// runs. It returns the forward with the port that it got.
func (s *Supervisor) AddForward(ctx context.Context, ref string, f banger.Forward) (banger.Forward, error) {
	m, err := s.withNetwork(ref)
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
	if file, f, err = m.s.listenOne(f); err != nil {
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

// storeNetwork stores what next says of the network and then tells it.
func (m *machine) storeNetwork(ctx context.Context, next banger.VM) error {
	if err := m.store(ctx, next); err != nil {
		return err
	}
	m.update(func(vm *banger.VM) {
		vm.Spec.Forwards, vm.Spec.Policy, vm.Forwards = next.Spec.Forwards, next.Spec.Policy, next.Forwards
	})
	return nil
}

// RemoveForward ends a forward, given as it is in force, and the connections that
// came by it.
func (s *Supervisor) RemoveForward(ctx context.Context, ref string, f banger.Forward) error {
	m, err := s.withNetwork(ref)
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
		return banger.Errorf(banger.CodeNotFound, "VM %s has no forward %s", vm.Name, f).WithHint("see: banger port ls %s", vm.Name)
	}
	next := vm
	if vm.State == banger.StateRunning {
		next.Forwards = slices.Delete(slices.Clone(list), at, at+1)
	}
	// What was wished may have been any free port. Both lists are in the same order.
	next.Spec.Forwards = slices.Delete(slices.Clone(vm.Spec.Forwards), at, at+1)
	if err := m.storeNetwork(ctx, next); err != nil {
		return err
	}
	if vm.State != banger.StateRunning {
		return nil
	}
	if err := m.s.shim(m.id()).RemoveForward(context.WithoutCancel(ctx), f); err != nil {
		return banger.Errorf(banger.CodeUnavailable, "the forward %s will be gone at the next start, but cannot be ended now: %w", f, err)
	}
	return nil
}

// SetPolicy replaces what a VM may reach. When it returns, flows that the policy
// forbids are cut.
func (s *Supervisor) SetPolicy(ctx context.Context, ref string, p banger.Policy) (banger.VM, error) {
	if err := p.Check(); err != nil {
		return banger.VM{}, err
	}
	m, err := s.withNetwork(ref)
	if err != nil {
		return banger.VM{}, err
	}
	err = m.change(ctx, func(ctx context.Context) error {
		vm := m.snapshot()
		next, c := vm, s.shim(m.id())
		next.Spec.Policy = &p
		set := func(context.Context, banger.Policy) error { return nil }
		switch {
		case vm.State.AtRest():
		case banger.OnBridge(vm.Spec.Network):
			set = m.setBridgePolicy
		default:
			set = c.SetPolicy
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

// Denials writes what the policy has refused since the VM's last start, as lines of
// JSON: the last tail ones (all that are kept when negative) and, with follow, what
// comes until the VM ends or ctx does.
func (s *Supervisor) Denials(ctx context.Context, ref string, tail int, follow bool, w io.Writer) error {
	m, err := s.withNetwork(ref)
	if err != nil {
		return err
	}
	c := s.shim(m.id())
	if !m.snapshot().State.AtRest() {
		if err := c.Denials(ctx, tail, follow, w); err == nil || ctx.Err() != nil {
			return nil
		}
	}
	return shim.ReadDenials(c.Dir, tail, w)
}

// setNetwork notes what is in force while the VM runs.
func (m *machine) setNetwork(address string, forwards []banger.Forward) {
	m.update(func(vm *banger.VM) { vm.Address, vm.Forwards = address, forwards })
}
