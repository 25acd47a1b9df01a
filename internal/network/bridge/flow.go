package bridge

import (
	"net"
	"net/netip"
	"slices"

	"banger/internal/network"
	"banger/internal/network/policy"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// comparePorts finds the ports that are new or changed since their tap was made.
func (b *Bridge) comparePorts(c Config) error {
	links, err := b.nl.LinkList()
	if err != nil {
		return err
	}
	aliases := map[string]string{}
	for _, l := range links {
		aliases[l.Attrs().Name] = l.Attrs().Alias
	}
	b.changed, b.fresh, b.dirty = map[netip.Addr]bool{}, map[netip.Addr]bool{}, false
	for _, p := range c.Ports {
		alias, exists := aliases[p.Tap()]
		b.fresh[p.Address], b.changed[p.Address] = !exists, alias != p.alias()
	}
	return nil
}

// endFlows ends the flows that no port or no policy allows any more, so that their
// next packet is decided anew. syncTaps writes afterwards to the tap which policy is
// in force, so that a crash in between repeats this.
func (b *Bridge) endFlows(c Config) error {
	f := flowFilter{bridge: b, config: c, ports: map[netip.Addr]Port{}, local: map[netip.Addr]bool{}}
	work := b.dirty
	for _, p := range c.Ports {
		f.ports[p.Address] = p
		work = work || b.changed[p.Address]
	}
	if !work {
		return nil
	}
	addrs, err := b.nl.AddrList(nil, unix.AF_INET)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		f.local[addrOfIP(a.IP)] = true
	}
	_, err = b.nl.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, f)
	return err
}

func addrOfIP(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// flowFilter finds the flows to end.
type flowFilter struct {
	bridge *Bridge
	config Config
	ports  map[netip.Addr]Port
	local  map[netip.Addr]bool
}

// MatchConntrackFlow reports whether a flow must end.
func (f flowFilter) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	src, dst := addrOfIP(c.Forward.SrcIP), addrOfIP(c.Forward.DstIP)
	if f.gone(src) || f.gone(dst) || f.bridge.fresh[src] || f.bridge.fresh[dst] {
		return true
	}
	if !f.bridge.changed[src] {
		return false
	}
	p := f.ports[src]
	for _, proto := range network.Protocols() {
		if proto.Number() != c.Forward.Protocol {
			continue
		}
		port := c.Forward.DstPort
		if proto == network.ICMP {
			port = 0
		}
		var names []string
		for name := range f.bridge.learned[p.ID].names[dst] {
			names = append(names, name)
		}
		return !f.config.mayReach(p, netip.AddrPortFrom(dst, port), proto, names, f.local[dst])
	}
	return true
}

// gone reports whether a belongs to one of our networks but to no VM.
func (f flowFilter) gone(a netip.Addr) bool {
	_, ok := f.ports[a]
	return !ok && slices.ContainsFunc(f.config.Networks, func(n Network) bool {
		return n.Subnet.Contains(a) && a != n.Gateway()
	})
}

// mayReach decides on one flow, as the table in the kernel does.
func (c Config) mayReach(p Port, dst netip.AddrPort, proto network.Protocol, names []string, local bool) bool {
	n := c.network(p.Network)
	switch {
	case local && dst.Addr() == n.Gateway():
		return policy.ReachesGateway(p.Policy, proto, dst.Port())
	case n.Subnet.Contains(dst.Addr()):
		return !local && !n.Isolated
	}
	for _, other := range c.Networks {
		if other.Subnet.Contains(dst.Addr()) {
			return false
		}
	}
	return policy.Reaches(p.Policy, dst, proto, names, local)
}
