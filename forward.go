package banger

import (
	"fmt"
	"net/netip"
	"strings"
)

// MaxForwards is the maximum number of forwards of one VM.
const MaxForwards = 1000

// Forward sends a port of the host to a port of the guest.
type Forward struct {
	Protocol  string `json:"protocol"`  // tcp or udp
	HostIP    string `json:"host_ip"`   // address of the host on which it listens
	HostPort  uint16 `json:"host_port"` // 0 means any free port
	GuestPort uint16 `json:"guest_port"`
}

// Host returns the address and port on which the host listens.
func (f Forward) Host() netip.AddrPort {
	ip, _ := netip.ParseAddr(f.HostIP)
	return netip.AddrPortFrom(ip, f.HostPort)
}

// String returns f in the form of docker's -p, with an address.
func (f Forward) String() string {
	host := f.HostIP
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("%s:%d:%d/%s", host, f.HostPort, f.GuestPort, f.Protocol)
}

// Check returns an *Error of CodeInvalid if f is incomplete or its address is not one.
func (f Forward) Check() error {
	if ip, err := netip.ParseAddr(f.HostIP); err != nil || ip.Zone() != "" || f.GuestPort == 0 ||
		f.Protocol != "tcp" && f.Protocol != "udp" {
		return Errorf(CodeInvalid, "the forward %s is incomplete, or its address is not one", f)
	}
	return nil
}

// SameHostPort reports whether f and o want the same port of the host.
func (f Forward) SameHostPort(o Forward) bool {
	any := func(f Forward) bool { return f.HostIP == "0.0.0.0" || f.HostIP == "::" }
	return f.HostPort != 0 && f.HostPort == o.HostPort && f.Protocol == o.Protocol &&
		(f.HostIP == o.HostIP || any(f) || any(o))
}

// CheckForwards checks each forward, and that no two of them want the same port of the host.
func CheckForwards(list []Forward) error {
	if len(list) > MaxForwards {
		return Errorf(CodeInvalid, "%d forwards were given, but a VM may have %d", len(list), MaxForwards)
	}
	for i, f := range list {
		if err := f.Check(); err != nil {
			return err
		}
		for _, o := range list[:i] {
			if f.SameHostPort(o) {
				return Errorf(CodeInvalid, "the forwards %s and %s want the same port of the host", o, f)
			}
		}
	}
	return nil
}
