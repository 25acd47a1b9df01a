package supervisor

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/network"
)

// bridgePool is where the subnets come from that nobody has chosen, each of 256
// addresses.
var bridgePool = netip.MustParsePrefix("172.30.0.0/16")

const bridgeBits = 24

// needRoot is why there is no bridge, or nil.
func (s *Supervisor) needRoot(name string) error {
	if s.opts.Root && s.bridge != nil {
		return nil
	}
	return banger.Errorf(banger.CodeDenied, "network %q is a bridge of the host, which needs a daemon of root", name).
		WithHint("use --network user, which gives outbound traffic, names and every port of the VM at its own address without root")
}

// Networks returns the networks that there are, with their VMs.
func (s *Supervisor) Networks(ctx context.Context) ([]banger.Network, error) {
	list, err := s.opts.Store.Networks(ctx)
	for i := range list {
		for _, vm := range s.List(func(vm banger.VM) bool { return vm.Spec.Network == list[i].Name }) {
			list[i].VMs = append(list[i].VMs, vm.Name)
		}
		slices.Sort(list[i].VMs)
	}
	return list, err
}

// Network returns one.
func (s *Supervisor) Network(ctx context.Context, name string) (banger.Network, error) {
	list, err := s.Networks(ctx)
	if err != nil {
		return banger.Network{}, err
	}
	i := slices.IndexFunc(list, func(n banger.Network) bool { return n.Name == name })
	if i < 0 {
		return banger.Network{}, banger.Errorf(banger.CodeNotFound, "there is no network called %q", name).WithHint("make it: banger network create %s", name)
	}
	return list[i], nil
}

// CreateNetwork makes a network whose VMs see each other. Nothing of it is on the
// host while no VM runs on it. An empty subnet is chosen.
func (s *Supervisor) CreateNetwork(ctx context.Context, n banger.Network) (banger.Network, error) {
	if err := n.Check(); err != nil {
		return n, err
	}
	if err := s.needRoot(n.Name); err != nil {
		return n, err
	}
	s.networks.Lock()
	defer s.networks.Unlock()
	n.Isolated, n.VMs = false, nil
	return s.addNetwork(ctx, n)
}

// addNetwork checks and stores a network; s.networks is held.
func (s *Supervisor) addNetwork(ctx context.Context, n banger.Network) (banger.Network, error) {
	have, err := s.opts.Store.Networks(ctx)
	if err != nil {
		return n, err
	}
	taken, err := network.HostNetworks()
	if err != nil {
		return n, banger.Errorf(banger.CodeUnavailable, "cannot see which networks the host reaches: %w", err)
	}
	var c network.BridgeConfig
	for _, o := range have {
		if o.Name == n.Name {
			return n, banger.Errorf(banger.CodeConflict, "a network called %q exists already", n.Name).WithHint("see: banger network ls")
		}
		c.Networks = append(c.Networks, bridgeNetwork(o))
		taken = append(taken, o.Prefix())
	}
	if n.Subnet == "" {
		free, ok := network.FreeSubnet(bridgePool, bridgeBits, taken)
		if !ok {
			return n, banger.Errorf(banger.CodeConflict, "no part of %s is free for network %q", bridgePool, n.Name).WithHint("name one: --subnet 10.200.7.0/24")
		}
		n.Subnet = free.String()
	}
	c.Networks = append(c.Networks, bridgeNetwork(n))
	if err := c.Check(taken[:len(taken)-len(have)]); err != nil {
		return n, err
	}
	n.CreatedAt = time.Now().UTC()
	return n, s.opts.Store.CreateNetwork(ctx, n)
}

func bridgeNetwork(n banger.Network) network.BridgeNetwork {
	return network.BridgeNetwork{Name: n.Name, Subnet: n.Prefix(), Isolated: n.Isolated}
}

// RemoveNetwork deletes a network that no VM uses.
func (s *Supervisor) RemoveNetwork(ctx context.Context, name string) error {
	s.networks.Lock()
	defer s.networks.Unlock()
	n, err := s.Network(ctx, name)
	if err != nil {
		return err
	}
	if len(n.VMs) > 0 {
		return banger.Errorf(banger.CodeConflict, "network %s is that of VM %s", name, n.VMs[0]).WithHint("remove the VM, or give it another: banger network connect user %s", n.VMs[0])
	}
	return s.opts.Store.DeleteNetwork(ctx, name)
}

// checkNetwork makes sure that a VM can be on a network; the one called bridge is
// made when it is first asked for. s.networks is held.
func (s *Supervisor) checkNetwork(ctx context.Context, name string) error {
	if !banger.OnBridge(name) {
		return nil
	}
	if err := s.needRoot(name); err != nil {
		return err
	}
	_, err := s.Network(ctx, name)
	if banger.CodeOf(err) == banger.CodeNotFound && name == banger.NetworkBridge {
		_, err = s.addNetwork(ctx, banger.Network{Name: name, Isolated: true})
	}
	return err
}

// ConnectNetwork gives a VM at rest another network.
func (s *Supervisor) ConnectNetwork(ctx context.Context, ref, name string) (banger.VM, error) {
	return s.alter(ctx, ref, func(ctx context.Context, m *machine) error {
		s.networks.Lock()
		defer s.networks.Unlock()
		vm := m.snapshot()
		if !vm.State.AtRest() {
			return stateError("change the network of", vm, "stop it first: banger stop "+vm.Name)
		}
		spec := vm.Spec
		spec.Network = name
		if err := spec.Normalize(); err != nil {
			return err
		}
		if err := s.checkNetwork(ctx, name); err != nil {
			return err
		}
		vm.Spec = spec
		if err := m.store(ctx, vm); err != nil {
			return err
		}
		m.update(func(vm *banger.VM) { vm.Spec.Network, vm.Spec.Policy = spec.Network, spec.Policy })
		return nil
	})
}

// bridgeConfig is what should be on the host now: the networks of VMs that have an
// address, and those VMs. s.networks is held.
func (s *Supervisor) bridgeConfig(ctx context.Context) (c network.BridgeConfig, err error) {
	have, err := s.opts.Store.Networks(ctx)
	if err != nil {
		return c, err
	}
	for _, n := range have {
		used := false
		for _, m := range s.all() {
			vm := m.snapshot()
			addr, err := netip.ParseAddr(vm.Address)
			if vm.Spec.Network != n.Name || err != nil {
				continue
			}
			used = true
			p := network.BridgePort{ID: vm.ID, Name: vm.Name, Network: n.Name, Address: addr, MAC: network.MAC(vm.ID), UID: uint32(firstUID + m.slot), Policy: banger.Policy{Default: banger.Deny}}
			if vm.Spec.Policy != nil {
				p.Policy = *vm.Spec.Policy
			}
			c.Ports = append(c.Ports, p)
		}
		if used {
			c.Networks = append(c.Networks, bridgeNetwork(n))
		}
	}
	return c, nil
}

func (s *Supervisor) all() []*machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*machine
	for _, m := range s.machines {
		list = append(list, m)
	}
	return list
}

// syncBridge makes the host's bridges as the VMs need them. What fails is tried
// again by the bridge itself.
func (s *Supervisor) syncBridge(ctx context.Context) error {
	if s.bridge == nil {
		return nil
	}
	s.networks.Lock()
	defer s.networks.Unlock()
	if s.adopting {
		return nil // a VM that is not known yet would lose its tap
	}
	return s.applyBridge(ctx)
}

// setAdopting says whether VMs of an earlier daemon are still to be adopted.
func (s *Supervisor) setAdopting(on bool) {
	s.networks.Lock()
	defer s.networks.Unlock()
	s.adopting = on
}

func (s *Supervisor) applyBridge(ctx context.Context) error {
	c, err := s.bridgeConfig(ctx)
	if err != nil {
		return err
	}
	return s.bridge.Apply(ctx, c)
}

// joinBridge gives the VM an address on its network, and with it a tap; leaveNetwork
// undoes it.
func (m *machine) joinBridge(ctx context.Context, vm banger.VM) (address string, err error) {
	s := m.s
	if err := s.needRoot(vm.Spec.Network); err != nil {
		return "", err
	}
	s.networks.Lock()
	defer s.networks.Unlock()
	n, err := s.Network(ctx, vm.Spec.Network)
	if err != nil {
		return "", err
	}
	addr, err := s.freeAddress(n)
	if err != nil {
		return "", err
	}
	m.update(func(vm *banger.VM) { vm.Address = addr.String() })
	if err = s.applyBridge(ctx); err != nil {
		m.update(func(vm *banger.VM) { vm.Address = "" })
		s.applyBridge(context.WithoutCancel(ctx)) // the first error tells more
	}
	return addr.String(), err
}

// freeAddress returns the first address that no VM has.
func (s *Supervisor) freeAddress(n banger.Network) (netip.Addr, error) {
	used := map[string]bool{}
	for _, vm := range s.List(func(vm banger.VM) bool { return vm.Spec.Network == n.Name }) {
		used[vm.Address] = true
	}
	subnet := n.Prefix()
	for a := bridgeNetwork(n).Gateway().Next(); subnet.Contains(a.Next()); a = a.Next() { // the last one is for broadcasts
		if !used[a.String()] {
			return a, nil
		}
	}
	return netip.Addr{}, banger.Errorf(banger.CodeConflict, "network %s has no free address: %s is full", n.Name, n.Subnet).WithHint("make a larger one: banger network create --subnet")
}

// leaveNetwork notes that the VM runs no more, and frees what it had on the host.
func (m *machine) leaveNetwork() {
	m.setNetwork("", nil)
	if banger.OnBridge(m.snapshot().Spec.Network) {
		m.s.syncBridge(context.WithoutCancel(m.ctx)) // else the bridge tries again
	}
}

// setBridgePolicy puts a policy in force; when it returns, flows that it forbids have
// ended. On an error the old one holds.
func (m *machine) setBridgePolicy(ctx context.Context, p banger.Policy) error {
	old := m.snapshot().Spec.Policy
	m.update(func(vm *banger.VM) { vm.Spec.Policy = &p })
	err := m.s.syncBridge(ctx)
	if err != nil {
		m.update(func(vm *banger.VM) { vm.Spec.Policy = old })
		m.s.syncBridge(context.WithoutCancel(ctx))
	}
	return err
}

// bridgedGuest is what the agent of a VM on a bridge is told.
func (s *Supervisor) bridgedGuest(ctx context.Context, vm banger.VM) (*guest.Network, error) {
	n, err := s.Network(ctx, vm.Spec.Network)
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(vm.Address)
	if err != nil {
		return nil, err
	}
	gateway := bridgeNetwork(n).Gateway().String()
	return &guest.Network{Address: netip.PrefixFrom(addr, n.Prefix().Bits()).String(), Gateway: gateway, DNS: []string{gateway},
		Search: network.BridgeSearch(network.SearchDomains(network.ResolvConf)), MTU: network.BridgeMTU}, nil
}

// denied hands to the VM's shim, which keeps them, what the bridge's resolver has
// refused.
func (s *Supervisor) denied(id string, d banger.Denial) {
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	s.shim(id).AddDenial(ctx, d)
}
