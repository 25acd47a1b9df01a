package wake

import (
	"net/netip"
	"slices"

	"banger"
	"banger/internal/shim"
	"banger/internal/text"
)

// maxProcess is the maximum length of the name of a process in bytes.
const maxProcess = 64

// Own returns the ports of a suspended VM on its own loopback address, as they were opened.
func Own(vm banger.VM) (list []banger.Forward) {
	if banger.OnBridge(vm.Spec.Network) {
		return nil
	}
	for _, l := range vm.Listeners {
		for _, r := range l.Reachable {
			at, err := netip.ParseAddrPort(r)
			if err != nil || at.Addr().String() != vm.Address {
				continue
			}
			f := banger.Forward{Protocol: l.Protocol, HostIP: vm.Address, HostPort: at.Port(), GuestPort: l.Port}
			same := func(o banger.Forward) bool { return o == f || f.SameHostPort(o) }
			if f.Check() == nil && at.Port() != 0 && !slices.ContainsFunc(vm.Forwards, same) &&
				!slices.ContainsFunc(list, same) {
				list = append(list, f)
			}
		}
	}
	return list
}

// Bound returns what a shim says of the listeners of its suspended VM, within bounds. A VM that no use may wake is
// reached nowhere.
func Bound(list []banger.Listener, vm banger.VM) []banger.Listener {
	list = slices.Clone(list[:min(len(list), shim.MaxWaiting)])
	for i := range list {
		l := &list[i]
		l.Protocol, l.Address = text.Limit(l.Protocol, maxProcess), text.Limit(l.Address, maxProcess)
		l.Process, l.URL, l.Problem = text.Limit(l.Process, maxProcess), "", ""
		l.Reachable = slices.Clone(l.Reachable[:min(len(l.Reachable), 1)])
		if vm.Spec.NoWake {
			l.Reachable = nil
		}
	}
	return list
}

// Listeners returns what listens in a suspended VM, and where connections to it wake the VM.
func Listeners(vm banger.VM) []banger.Listener {
	list := slices.Clone(vm.Listeners)
	for i := range list {
		l := &list[i]
		for _, f := range vm.Forwards {
			if f.GuestPort == l.Port && f.Protocol == l.Protocol && !vm.Spec.NoWake {
				l.Reachable = append(slices.Clone(l.Reachable), f.Host().String())
			}
		}
	}
	return list
}
