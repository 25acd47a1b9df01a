package networks

import (
	"context"
	"net/netip"

	"banger"
	"banger/internal/guest"
	"banger/internal/network"
	"banger/internal/network/bridge"
)

// config returns the wanted state of the host: the networks of VMs with an address, and those VMs. s.mu is held.
func (s *Networks) config(ctx context.Context) (c bridge.Config, err error) {
	have, err := s.Store.Networks(ctx)
	if err != nil {
		return c, err
	}
	for _, n := range have {
		used := false
		for _, vm := range s.VMs.List(func(vm banger.VM) bool { return vm.Spec.Network == n.Name }) {
			addr, err := netip.ParseAddr(vm.Address)
			if err != nil {
				continue
			}
			used = true
			p := bridge.Port{
				ID:      vm.ID,
				Name:    vm.Name,
				Network: n.Name,
				Address: addr,
				MAC:     network.MAC(vm.ID),
				UID:     s.VMs.UID(vm.ID),
				Policy:  banger.Policy{Default: banger.Deny},
			}
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

// Sync makes the host's bridges match the VMs. After an error, the bridge tries again by itself.
func (s *Networks) Sync(ctx context.Context) error {
	if s.Bridge == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.adopting {
		return nil // VMs that are not known yet would lose their taps
	}
	return s.apply(ctx)
}

// SetAdopting says whether VMs of an earlier daemon still have to be adopted. While that is so, Sync does nothing.
func (s *Networks) SetAdopting(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adopting = on
}

func (s *Networks) apply(ctx context.Context) error {
	c, err := s.config(ctx)
	if err != nil {
		return err
	}
	return s.Bridge.Apply(ctx, c)
}

// Join gives a VM a free address and a tap on its bridge network. A suspended VM keeps its address. Join calls assign
// with the address, and if it fails, with the one before.
func (s *Networks) Join(ctx context.Context, vm banger.VM, assign func(address string)) (address string, err error) {
	if err := s.needRoot(vm.Spec.Network); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.Network(ctx, vm.Spec.Network)
	if err != nil {
		return "", err
	}
	addr, err := netip.ParseAddr(vm.Address)
	if err != nil || !n.Prefix().Contains(addr) {
		addr, err = s.freeAddress(n)
	}
	if err != nil {
		return "", err
	}
	assign(addr.String())
	if err = s.apply(ctx); err != nil {
		assign(vm.Address)
		s.apply(context.WithoutCancel(ctx)) // the first error says more
	}
	return addr.String(), err
}

// freeAddress returns the first address that no VM has.
func (s *Networks) freeAddress(n banger.Network) (netip.Addr, error) {
	used := map[string]bool{}
	for _, vm := range s.VMs.List(func(vm banger.VM) bool { return vm.Spec.Network == n.Name }) {
		used[vm.Address] = true
	}
	subnet := n.Prefix()
	// The last address is for broadcasts.
	for a := bridgeNetwork(n).Gateway().Next(); subnet.Contains(a.Next()); a = a.Next() {
		if !used[a.String()] {
			return a, nil
		}
	}
	return netip.Addr{},
		banger.Errorf(banger.CodeConflict, "network %s has no free address: %s is full", n.Name, n.Subnet).
			WithHint("make a larger one: banger network create --subnet")
}

// Guest returns the network configuration for the agent of a VM, or nil if the VM has no network.
func (s *Networks) Guest(ctx context.Context, vm banger.VM) (*guest.Network, error) {
	switch {
	case vm.Spec.Network == banger.NetworkNone:
		return nil, nil
	case banger.OnBridge(vm.Spec.Network):
		return s.bridgedGuest(ctx, vm)
	}
	return &guest.Network{
		Address: netip.PrefixFrom(network.UserGuest, network.UserSubnet.Bits()).String(),
		Gateway: network.UserGateway.String(),
		DNS:     []string{network.UserDNS.String()},
		Search:  network.SearchDomains(network.ResolvConf),
		MTU:     network.UserMTU,
	}, nil
}

func (s *Networks) bridgedGuest(ctx context.Context, vm banger.VM) (*guest.Network, error) {
	n, err := s.Network(ctx, vm.Spec.Network)
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(vm.Address)
	if err != nil {
		return nil, err
	}
	gateway := bridgeNetwork(n).Gateway().String()
	return &guest.Network{
		Address: netip.PrefixFrom(addr, n.Prefix().Bits()).String(),
		Gateway: gateway,
		DNS:     []string{gateway},
		Search:  network.BridgeSearch(network.SearchDomains(network.ResolvConf)),
		MTU:     bridge.MTU,
	}, nil
}
