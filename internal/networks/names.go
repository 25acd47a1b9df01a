package networks

import (
	"net/netip"

	"banger"
)

// find returns a VM that has an address and for which is returns true.
func (s *Networks) find(is func(banger.VM) bool) (banger.VM, netip.Addr, bool) {
	for _, vm := range s.VMs.List(func(vm banger.VM) bool { return vm.Address != "" && is(vm) }) {
		if addr, err := netip.ParseAddr(vm.Address); err == nil {
			return vm, addr, true
		}
	}
	return banger.VM{}, netip.Addr{}, false
}

// Address returns the current address of the VM called vm on the network called network, where "" means any network.
// Together with HasNetwork and Name, it is the directory of the DNS servers. The question wakes a suspended VM on a
// bridge, because nobody notices a connection to its address.
func (s *Networks) Address(vm, network string) (netip.Addr, bool) {
	v, addr, ok := s.find(func(v banger.VM) bool { return v.Name == vm && (network == "" || v.Spec.Network == network) })
	if ok && v.State == banger.StateSuspended && banger.OnBridge(v.Spec.Network) && s.Knock != nil {
		s.Knock(v.ID)
	}
	return addr, ok
}

// HasNetwork reports whether a VM with an address is on the network.
func (s *Networks) HasNetwork(network string) bool {
	_, _, ok := s.find(func(v banger.VM) bool { return v.Spec.Network == network })
	return ok
}

// Name returns the VM with the address addr, and its network.
func (s *Networks) Name(addr netip.Addr) (vm, network string, ok bool) {
	v, _, ok := s.find(func(v banger.VM) bool { return v.Address == addr.String() })
	return v.Name, v.Spec.Network, ok
}
