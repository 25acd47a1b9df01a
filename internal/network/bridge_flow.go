package network

import (
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// comparePorts finds the ports that are new or changed since their tap was made.
func (b *Bridge) comparePorts(c BridgeConfig) error {
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
func (b *Bridge) endFlows(c BridgeConfig) error {
	f := flowFilter{bridge: b, config: c, ports: map[netip.Addr]BridgePort{}, local: map[netip.Addr]bool{}}
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
	config BridgeConfig
	ports  map[netip.Addr]BridgePort
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
	for name, n := range protocols {
		if n != c.Forward.Protocol {
			continue
		}
		port := c.Forward.DstPort
		if name == ICMP {
			port = 0
		}
		var names []string
		for name := range f.bridge.learned[p.ID].names[dst] {
			names = append(names, name)
		}
		return !f.config.mayReach(p, netip.AddrPortFrom(dst, port), name, names, f.local[dst])
	}
	return true
}

// gone says whether an address is of our networks and nobody's.
func (f flowFilter) gone(a netip.Addr) bool {
	_, ok := f.ports[a]
	return !ok && slices.ContainsFunc(f.config.Networks, func(n BridgeNetwork) bool { return n.Subnet.Contains(a) && a != n.Gateway() })
}
