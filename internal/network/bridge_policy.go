package network

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"banger"
)

// cell is a box of destinations with one verdict. The cells of one VM do not
// overlap, so that their order means nothing.
type cell struct {
	local       bool // whether the destination is an address of the host
	first, last uint32
	proto       [2]uint8
	ports       banger.PortRange
	allow       bool
}

// protocols that guests may use, by their numbers (RFC 9293, 768, 792).
var protocols = map[Protocol]uint8{ICMP: 1, TCP: 6, UDP: 17}

var protocolOrder = []Protocol{ICMP, TCP, UDP}

var allPorts = banger.PortRange{First: 0, Last: 65535}

// reach is what of one address a VM may reach: the allowed ports by protocol, in
// order and not adjacent.
type reach map[Protocol][]banger.PortRange

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func addrOf(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

func lastOf(p netip.Prefix) uint32 { return number(p.Addr()) | uint32(1<<(32-p.Bits())-1) }

// decide is Guard.decide for all protocols and ports of one address at once.
func decide(p banger.Policy, rules []rule, addr netip.Addr, names []string, local bool) reach {
	out := reach{}
	if within(never, addr) {
		return out
	}
	class := classOf(addr, local)
	for _, proto := range protocolOrder {
		open := []banger.PortRange{allPorts}
		for _, r := range rules {
			if (r.Protocol != "" && r.Protocol != string(proto)) || !r.to(addr, names, class) {
				continue
			}
			open = out.take(proto, open, r.Rule)
		}
		if class == "" && p.Default == banger.Allow {
			out[proto] = append(out[proto], open...)
		}
		out[proto] = join(out[proto])
	}
	return out
}

// decideGateway is what a VM reaches at the gateway: DNS, echo, and what rules for
// the host allow.
func decideGateway(rules []rule) reach {
	out := reach{ICMP: {allPorts}}
	for _, proto := range []Protocol{TCP, UDP} {
		dns := banger.PortRange{First: 53, Last: 53}
		open := out.take(proto, []banger.PortRange{allPorts}, banger.Rule{Action: banger.Allow, Ports: []banger.PortRange{dns}})
		for _, r := range rules {
			if r.To == banger.ToHost && (r.Protocol == "" || r.Protocol == string(proto)) {
				open = out.take(proto, open, r.Rule)
			}
		}
		out[proto] = join(out[proto])
	}
	return out
}

// take gives the ports of open that r matches to r, and returns the others.
func (out reach) take(proto Protocol, open []banger.PortRange, r banger.Rule) []banger.PortRange {
	ports := r.Ports
	if len(ports) == 0 {
		ports = []banger.PortRange{allPorts}
	}
	for _, p := range ports {
		var rest []banger.PortRange
		for _, o := range open {
			lo, hi := max(o.First, p.First), min(o.Last, p.Last)
			if lo > hi {
				rest = append(rest, o)
				continue
			}
			if r.Action == banger.Allow {
				out[proto] = append(out[proto], banger.PortRange{First: lo, Last: hi})
			}
			if o.First < lo {
				rest = append(rest, banger.PortRange{First: o.First, Last: lo - 1})
			}
			if o.Last > hi {
				rest = append(rest, banger.PortRange{First: hi + 1, Last: o.Last})
			}
		}
		open = rest
	}
	return open
}

func join(ranges []banger.PortRange) []banger.PortRange {
	slices.SortFunc(ranges, func(a, b banger.PortRange) int { return int(a.First) - int(b.First) })
	var out []banger.PortRange
	for _, r := range ranges {
		if n := len(out); n > 0 && int(out[n-1].Last)+1 == int(r.First) {
			out[n-1].Last = r.Last
			continue
		}
		out = append(out, r)
	}
	return out
}

func (out reach) equal(other reach) bool {
	for _, proto := range protocolOrder {
		if !slices.Equal(out[proto], other[proto]) {
			return false
		}
	}
	return true
}

func (out reach) allows(proto Protocol, port uint16) bool {
	return slices.ContainsFunc(out[proto], func(r banger.PortRange) bool { return r.First <= port && port <= r.Last })
}

// allowed returns the cells of what is allowed.
func (out reach) allowed(local bool, first, last uint32) []cell {
	full := []banger.PortRange{allPorts}
	if out.equal(reach{ICMP: full, TCP: full, UDP: full}) {
		return []cell{{local, first, last, [2]uint8{0, 255}, allPorts, true}}
	}
	var cells []cell
	for _, proto := range protocolOrder {
		for _, r := range out[proto] {
			cells = append(cells, cell{local, first, last, [2]uint8{protocols[proto], protocols[proto]}, r, true})
		}
	}
	return cells
}

// partition returns cells for what is allowed and for what is not.
func (out reach) partition(local bool, addr uint32) []cell {
	cells := out.allowed(local, addr, addr)
	if len(cells) == 1 && cells[0].proto[1] == 255 {
		return cells
	}
	for _, proto := range protocolOrder {
		open := []banger.PortRange{allPorts}
		for _, r := range out[proto] {
			open = reach{}.take(proto, open, banger.Rule{Ports: []banger.PortRange{r}})
		}
		for _, r := range open {
			cells = append(cells, cell{local, addr, addr, [2]uint8{protocols[proto], protocols[proto]}, r, false})
		}
	}
	return cells
}

// cells compiles what p may reach without regard to names. It says the same as
// Guard.decide: between the edges of all networks that the built-in lists and the
// rules name, every address has the same answer, which is worked out rule by rule.
func (c BridgeConfig) cells(p BridgePort) []cell {
	rules, n := ready(p.Policy), c.network(p.Network)
	closed := slices.Clone(never)
	for _, n := range c.Networks {
		closed = append(closed, n.Subnet)
	}
	edges := []uint32{0}
	add := func(list ...netip.Prefix) {
		for _, p := range list {
			edges = append(edges, number(p.Addr()))
			if last := lastOf(p); last != 1<<32-1 {
				edges = append(edges, last+1)
			}
		}
	}
	add(closed...)
	add(special...)
	for _, r := range rules {
		if r.prefix.IsValid() {
			add(r.prefix)
		}
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	var cells []cell
	for _, local := range []bool{false, true} {
		cells = append(cells, between(edges, func(addr netip.Addr) reach {
			if within(closed, addr) {
				return reach{}
			}
			return decide(p.Policy, rules, addr, nil, local)
		}, local)...)
	}
	gateway := number(n.Gateway())
	cells = append(cells, decideGateway(rules).allowed(true, gateway, gateway)...)
	if !n.Isolated {
		cells = append(cells, cell{false, number(n.Subnet.Addr()), lastOf(n.Subnet), [2]uint8{0, 255}, allPorts, true})
	}
	return cells
}

// between returns the allowed cells between edges, neighbours with the same
// answer as one.
func between(edges []uint32, answer func(netip.Addr) reach, local bool) []cell {
	var cells []cell
	var before reach
	start := edges[0]
	for i, edge := range edges {
		now := answer(addrOf(edge))
		if i > 0 && !now.equal(before) {
			cells = append(cells, before.allowed(local, start, edge-1)...)
			start = edge
		}
		before = now
	}
	return append(cells, before.allowed(local, start, 1<<32-1)...)
}

// namesMatter reports whether a rule speaks of one of the names.
func namesMatter(rules []rule, names []string) bool {
	return slices.ContainsFunc(rules, func(r rule) bool {
		word := r.prefix.IsValid() || r.private || r.To == banger.ToAny || r.To == banger.ToHost
		return !word && slices.ContainsFunc(names, func(n string) bool { return matchName(r.To, n) })
	})
}

// mayReach decides on one flow, as the table in the kernel does.
func (c BridgeConfig) mayReach(p BridgePort, dst netip.AddrPort, proto Protocol, names []string, local bool) bool {
	n, rules := c.network(p.Network), ready(p.Policy)
	switch {
	case local && dst.Addr() == n.Gateway():
		return decideGateway(rules).allows(proto, dst.Port())
	case n.Subnet.Contains(dst.Addr()):
		return !local && !n.Isolated
	}
	for _, other := range c.Networks {
		if other.Subnet.Contains(dst.Addr()) {
			return false
		}
	}
	return decide(p.Policy, rules, dst.Addr(), names, local).allows(proto, dst.Port())
}
