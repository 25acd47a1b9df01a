// Package notation reads what a person writes for a policy of the network, for forwards of ports, and for numbers of
// CPUs, times and restarts of a VM. It must not know where the text comes from.
package notation

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"banger"
)

// ParseForward reads a forward as docker's -p does, [IP:][HOST:]GUEST[/PROTOCOL], but it binds 127.0.0.1 if IP is
// absent. An address of IPv6 has brackets. If HOST is absent or 0, any free port is taken.
func ParseForward(s string) (banger.Forward, error) {
	w, err := splitForward(s)
	var f banger.Forward
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
func ParseForwards(s string) ([]banger.Forward, error) {
	w, err := splitForward(s)
	if err != nil || !strings.Contains(w.host+w.guest, "-") {
		f, err := ParseForward(s)
		return []banger.Forward{f}, err
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
	var list []banger.Forward
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
func (w forwardWords) forward() (f banger.Forward, err error) {
	f = banger.Forward{Protocol: w.protocol}
	if f.Protocol != "tcp" && f.Protocol != "udp" {
		return f, errors.New("the protocol must be tcp or udp")
	}
	ip, err := netip.ParseAddr(cmp.Or(w.ip, "127.0.0.1"))
	if err != nil || ip.Zone() != "" {
		return f, errors.New("the host's address must be one of IPv4, or one of IPv6 in brackets")
	}
	f.HostIP = ip.Unmap().String()
	if f.GuestPort, err = banger.ParsePort(w.guest); err != nil {
		return f, err
	}
	if w.host != "0" && w.host != "" {
		f.HostPort, err = banger.ParsePort(w.host)
	}
	return f, err
}

// portsOf returns the ports of a range, such as 80 or 8000-8010.
func portsOf(text string) (list []string, err error) {
	ports, err := banger.ParsePortRange(text)
	if err != nil {
		return nil, err
	}
	if int(ports.Last)-int(ports.First) >= banger.MaxForwards {
		return nil, fmt.Errorf("%q has more than %d ports", text, banger.MaxForwards)
	}
	for p := int(ports.First); p <= int(ports.Last); p++ {
		list = append(list, strconv.Itoa(p))
	}
	return list, nil
}

func badForward(s, why string) *banger.Error {
	return banger.Errorf(banger.CodeInvalid, "%q is not a forward: %s", s, why).
		WithHint("for example: 8080:80, 0.0.0.0:5353:53/udp or 0:80")
}
