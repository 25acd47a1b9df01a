package supervisor

import (
	"net/netip"

	"banger"
)

// Names is who has which address now, for who answers names.
type Names struct{ s *Supervisor }

// Names returns the directory of the VMs that have addresses.
func (s *Supervisor) Names() Names { return Names{s} }

// find returns the first VM that has an address and that is asked for.
func (n Names) find(is func(banger.VM) bool) (banger.VM, netip.Addr, bool) {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	for _, m := range n.s.machines {
		vm := m.snapshot()
		if vm.Address == "" || !is(vm) {
			continue
		}
		if addr, err := netip.ParseAddr(vm.Address); err == nil {
			return vm, addr, true
		}
	}
	return banger.VM{}, netip.Addr{}, false
}

// Address returns the address of a VM; with network "" of whichever network.
func (n Names) Address(vm, network string) (netip.Addr, bool) {
	_, addr, ok := n.find(func(v banger.VM) bool { return v.Name == vm && (network == "" || v.Spec.Network == network) })
	return addr, ok
}

// HasNetwork says whether a VM with an address is on the network.
func (n Names) HasNetwork(network string) bool {
	_, _, ok := n.find(func(v banger.VM) bool { return v.Spec.Network == network })
	return ok
}

// Name returns who has an address.
func (n Names) Name(addr netip.Addr) (vm, network string, ok bool) {
	v, _, ok := n.find(func(v banger.VM) bool { return v.Address == addr.String() })
	return v.Name, v.Spec.Network, ok
}
