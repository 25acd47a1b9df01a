package networks

import (
	"net/netip"
	"os"
	"slices"
	"strings"

	"banger"
	"banger/internal/network"
	"banger/internal/notation"
)

// Loopback returns the address in 127.0.0.0/8 of the VM in a slot of a user's daemon, or "" if the slot is too high.
// The address depends on the uid, so daemons of different users rarely use the same one.
func Loopback(uid, slot int) string {
	const perBlock = 254
	if slot < 0 || slot >= 256*perBlock {
		return ""
	}
	return netip.AddrFrom4([4]byte{127, byte(64 + uid%128), byte(slot / perBlock), byte(1 + slot%perBlock)}).String()
}

// Sockets are the listening sockets of a VM.
type Sockets struct {
	Forwards []banger.Forward // with the free ports that were chosen
	// Own are ports on the own address of a VM that goes on, and Listeners is what listens in its guest.
	Own       []banger.Forward
	Listeners []banger.Listener
	Files     []*os.File // in the order of Forwards and then Own
}

// Close closes all sockets. Copies in other processes stay open.
func (s *Sockets) Close() {
	for _, f := range s.Files {
		f.Close()
	}
}

// Listen opens all forwards of a VM or none. The daemon listens, and not the shim, because it must know before the
// start of a VM whether a port is taken.
func (s *Networks) Listen(wanted []banger.Forward) (*Sockets, error) {
	o := &Sockets{}
	for _, f := range wanted {
		file, bound, err := s.ListenOne(f)
		if err != nil {
			o.Close()
			return nil, err
		}
		o.Files, o.Forwards = append(o.Files, file), append(o.Forwards, bound)
	}
	return o, nil
}

// ListenOne opens one forward, and returns it with the port that was chosen.
func (s *Networks) ListenOne(f banger.Forward) (*os.File, banger.Forward, error) {
	return s.ListenFor("", f)
}

// ListenFor is like ListenOne, for a forward that the VM with this id may have already.
func (s *Networks) ListenFor(id string, f banger.Forward) (*os.File, banger.Forward, error) {
	for _, vm := range s.VMs.List(func(vm banger.VM) bool { return len(vm.Forwards) > 0 && vm.ID != id }) {
		if slices.ContainsFunc(vm.Forwards, f.SameHostPort) {
			return nil, f,
				banger.Errorf(banger.CodeConflict, "port %s/%s of the host is forwarded to VM %s", f.Host(), f.Protocol, vm.Name).
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

// CheckPorts returns an error if a port is taken now. Another process may still take it before Listen does.
func (s *Networks) CheckPorts(wanted []banger.Forward) error {
	o, err := s.Listen(wanted)
	if err == nil {
		o.Close()
	}
	return err
}

// Exposed returns forwards from free ports to all ports that the image declares, except those in named.
func Exposed(img banger.Image, named []banger.Forward) ([]banger.Forward, error) {
	var list []banger.Forward
	for _, e := range img.Config.Exposed {
		f, err := notation.ParseForward(e)
		if err != nil || strings.Contains(e, ":") {
			return nil, banger.Errorf(banger.CodeBadImage, "the image exposes %q, which is not a port", e).
				WithHint("name the ports yourself: -p instead of -P")
		}
		same := func(n banger.Forward) bool { return n.GuestPort == f.GuestPort && n.Protocol == f.Protocol }
		if !slices.ContainsFunc(named, same) {
			list = append(list, f)
		}
	}
	return list, banger.CheckForwards(append(slices.Clone(named), list...))
}
