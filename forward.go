package banger

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
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

// ParseForward reads a forward as docker's -p does, [IP:][HOST:]GUEST[/PROTOCOL], but it binds 127.0.0.1 if IP is
// absent. An address of IPv6 has brackets. If HOST is absent or 0, any free port is taken.
func ParseForward(s string) (Forward, error) {
	w, err := splitForward(s)
	var f Forward
	if err == nil {
		f, err = w.forward()
	}
	if err != nil {
		return f, badForward(s, err.Error())
	}
	return f, nil
}

// ParseForwards is ParseForward for ranges of ports, as docker's -p: 8000-8010:80-90 is one forward for each port. Both
// ranges must have the same length, or the host's is absent.
func ParseForwards(s string) ([]Forward, error) {
	w, err := splitForward(s)
	if err != nil || !strings.Contains(w.host+w.guest, "-") {
		f, err := ParseForward(s)
		return []Forward{f}, err
	}
	guest, err := portsOf(w.guest)
	if err != nil {
		return nil, badForward(s, err.Error())
	}
	host := make([]string, len(guest))
	if w.host != "" && w.host != "0" {
		if host, err = portsOf(w.host); err != nil {
			return nil, badForward(s, err.Error())
		}
	}
	if len(host) != len(guest) {
		return nil, badForward(s, fmt.Sprintf("%d ports of the host do not fit %d of the guest", len(host), len(guest)))
	}
	var list []Forward
	for i := range guest {
		w.host, w.guest = host[i], guest[i]
		f, err := w.forward()
		if err != nil {
			return nil, badForward(s, err.Error())
		}
		list = append(list, f)
	}
	return list, nil
}

// forwardWords are the parts of a forward as they are written. ip, which has no brackets here, and host may be "".
type forwardWords struct{ ip, host, guest, protocol string }

// splitForward takes the text of a forward apart. It checks only where the parts end.
func splitForward(s string) (w forwardWords, err error) {
	rest, protocol, found := strings.Cut(s, "/")
	if w.protocol = protocol; !found {
		w.protocol = "tcp"
	}
	if inner, ok := strings.CutPrefix(rest, "["); ok {
		if w.ip, rest, ok = strings.Cut(inner, "]:"); !ok || w.ip == "" {
			return w, errForwardIPv6
		}
	}
	parts := strings.Split(rest, ":")
	if w.ip == "" && len(parts) == 3 {
		w.ip, parts = parts[0], parts[1:]
	}
	if len(parts) > 2 {
		return w, errForwardIPv6
	}
	if w.guest = parts[len(parts)-1]; len(parts) == 2 {
		w.host = parts[0]
	}
	return w, nil
}

var errForwardIPv6 = errors.New("it has too many colons; an address of IPv6 is written as [::1]:8080:80")

// forward returns the forward of single ports.
func (w forwardWords) forward() (f Forward, err error) {
	f = Forward{Protocol: w.protocol}
	if f.Protocol != "tcp" && f.Protocol != "udp" {
		return f, errors.New("the protocol must be tcp or udp")
	}
	ip, err := netip.ParseAddr(cmp.Or(w.ip, "127.0.0.1"))
	if err != nil || ip.Zone() != "" {
		return f, errors.New("the host's address must be one of IPv4, or one of IPv6 in brackets")
	}
	f.HostIP = ip.Unmap().String()
	if f.GuestPort, err = ParsePort(w.guest); err != nil {
		return f, err
	}
	if w.host != "0" && w.host != "" {
		f.HostPort, err = ParsePort(w.host)
	}
	return f, err
}

// portsOf returns the ports of a range, such as 80 or 8000-8010.
func portsOf(text string) (list []string, err error) {
	ports, err := parsePortRange(text)
	if err != nil {
		return nil, err
	}
	if int(ports.Last)-int(ports.First) >= MaxForwards {
		return nil, fmt.Errorf("%q has more than %d ports", text, MaxForwards)
	}
	for p := int(ports.First); p <= int(ports.Last); p++ {
		list = append(list, strconv.Itoa(p))
	}
	return list, nil
}

func badForward(s, why string) *Error {
	return Errorf(CodeInvalid, "%q is not a forward: %s", s, why).
		WithHint("for example: 8080:80, 0.0.0.0:5353:53/udp or 0:80")
}

// Host returns the address and port on which the host listens.
func (f Forward) Host() netip.AddrPort {
	ip, _ := netip.ParseAddr(f.HostIP)
	return netip.AddrPortFrom(ip, f.HostPort)
}

// String returns f in the form that ParseForward reads.
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
