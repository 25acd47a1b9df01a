package policy

import (
	"net/netip"
	"slices"

	"banger"
	"banger/internal/ipaddr"
	"banger/internal/network"
)

// Cell is a set of destinations with one verdict. The cells of one VM do not overlap, so their
// order does not matter.
type Cell struct {
	Local     bool       // the destination is an address of the host
	First     netip.Addr // first of a range of addresses
	Last      netip.Addr // last of the range
	Protocols [2]uint8   // the first and the last number
	Ports     banger.PortRange
	Allow     bool
}

var allPorts = banger.PortRange{First: 0, Last: 65535}

// reach is the set of allowed ports of one address, by protocol. The ranges are in order and not
// adjacent.
type reach map[network.Protocol][]banger.PortRange

func lastOf(p netip.Prefix) uint32 { return ipaddr.Number(p.Addr()) | uint32(1<<(32-p.Bits())-1) }

// decide returns what Guard decides for all protocols and ports of one address.
func decide(p banger.Policy, rules []rule, addr netip.Addr, names []string, local bool) reach {
	out := reach{}
	if unreachable(addr) {
		return out
	}
	class := classOf(addr, local)
	for _, proto := range network.Protocols() {
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

// decideGateway returns what a VM reaches at the gateway: DNS, echo, and what rules for
// the host allow.
func decideGateway(rules []rule) reach {
	out := reach{network.ICMP: {allPorts}}
	for _, proto := range []network.Protocol{network.TCP, network.UDP} {
		dns := []banger.PortRange{{First: 53, Last: 53}}
		open := out.take(proto, []banger.PortRange{allPorts}, banger.Rule{Action: banger.Allow, Ports: dns})
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
func (out reach) take(proto network.Protocol, open []banger.PortRange, r banger.Rule) []banger.PortRange {
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
	for _, proto := range network.Protocols() {
		if !slices.Equal(out[proto], other[proto]) {
			return false
		}
	}
	return true
}

func (out reach) allows(proto network.Protocol, port uint16) bool {
	return slices.ContainsFunc(out[proto], func(r banger.PortRange) bool { return r.First <= port && port <= r.Last })
}

// cell returns a cell of one protocol.
func cell(proto network.Protocol, ports banger.PortRange, allow, local bool, first, last uint32) Cell {
	n := proto.Number()
	return Cell{local, ipaddr.FromNumber(first), ipaddr.FromNumber(last), [2]uint8{n, n}, ports, allow}
}

// allowed returns the cells of what is allowed.
func (out reach) allowed(local bool, first, last uint32) []Cell {
	full := []banger.PortRange{allPorts}
	if out.equal(reach{network.ICMP: full, network.TCP: full, network.UDP: full}) {
		return []Cell{anything(local, ipaddr.FromNumber(first), ipaddr.FromNumber(last))}
	}
	var cells []Cell
	for _, proto := range network.Protocols() {
		for _, r := range out[proto] {
			cells = append(cells, cell(proto, r, true, local, first, last))
		}
	}
	return cells
}

// anything returns the cell of all protocols and ports.
func anything(local bool, first, last netip.Addr) Cell {
	return Cell{local, first, last, [2]uint8{0, 255}, allPorts, true}
}

// partition returns cells for what is allowed and for what is not.
func (out reach) partition(local bool, addr uint32) []Cell {
	cells := out.allowed(local, addr, addr)
	if len(cells) == 1 && cells[0].Protocols[1] == 255 {
		return cells
	}
	for _, proto := range network.Protocols() {
		open := []banger.PortRange{allPorts}
		for _, r := range out[proto] {
			open = reach{}.take(proto, open, banger.Rule{Ports: []banger.PortRange{r}})
		}
		for _, r := range open {
			cells = append(cells, cell(proto, r, false, local, addr, addr))
		}
	}
	return cells
}

// Compile returns the cells of what p allows without regard to names. No address of closed
// is in them. They say the same as a Guard: between the edges of all networks that the
// built-in lists, the rules and closed name, every address has the same answer, which is
// worked out rule by rule.
func Compile(p banger.Policy, closed []netip.Prefix) []Cell {
	rules := ready(p)
	edges := []uint32{0}
	add := func(list ...netip.Prefix) {
		for _, p := range list {
			edges = append(edges, ipaddr.Number(p.Addr()))
			if last := lastOf(p); last != 1<<32-1 {
				edges = append(edges, last+1)
			}
		}
	}
	add(closed...)
	add(never...)
	add(special...)
	for _, r := range rules {
		if r.prefix.IsValid() {
			add(r.prefix)
		}
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	var cells []Cell
	for _, local := range []bool{false, true} {
		cells = append(cells, between(edges, func(addr netip.Addr) reach {
			if within(closed, addr) {
				return reach{}
			}
			return decide(p, rules, addr, nil, local)
		}, local)...)
	}
	return cells
}

// CompileGateway returns the cells of what p allows at the guest's gateway, an address of the
// host: DNS, echo, and what rules for the host allow.
func CompileGateway(p banger.Policy, gateway netip.Addr) []Cell {
	n := ipaddr.Number(gateway)
	return decideGateway(ready(p)).allowed(true, n, n)
}

// CompileSubnet returns the cells by which all of a network is reached.
func CompileSubnet(subnet netip.Prefix) []Cell {
	return []Cell{anything(false, subnet.Addr(), ipaddr.FromNumber(lastOf(subnet)))}
}

// CompileNames returns cells for all protocols and ports of an address that the guest was given for
// these names. It returns no cells if the names change nothing.
func CompileNames(p banger.Policy, addr netip.Addr, names []string) (cells []Cell) {
	rules := ready(p)
	if unreachable(addr) || !namesMatter(rules, names) {
		return nil
	}
	for _, local := range []bool{false, true} {
		named, plain := decide(p, rules, addr, names, local), decide(p, rules, addr, nil, local)
		if !named.equal(plain) {
			cells = append(cells, named.partition(local, ipaddr.Number(addr))...)
		}
	}
	return cells
}

// Reaches decides on one flow as the cells do. names are those for which the guest was given the
// address. local says that the address belongs to the host.
func Reaches(p banger.Policy, dst netip.AddrPort, proto network.Protocol, names []string, local bool) bool {
	return decide(p, ready(p), dst.Addr(), names, local).allows(proto, dst.Port())
}

// ReachesGateway decides on one flow to the guest's gateway as the cells do.
func ReachesGateway(p banger.Policy, proto network.Protocol, port uint16) bool {
	return decideGateway(ready(p)).allows(proto, port)
}

// between returns the allowed cells between edges. Neighbours with the same answer become
// one cell.
func between(edges []uint32, answer func(netip.Addr) reach, local bool) []Cell {
	var cells []Cell
	var before reach
	start := edges[0]
	for i, edge := range edges {
		now := answer(ipaddr.FromNumber(edge))
		if i > 0 && !now.equal(before) {
			cells = append(cells, before.allowed(local, start, edge-1)...)
			start = edge
		}
		before = now
	}
	return append(cells, before.allowed(local, start, 1<<32-1)...)
}

// NamesMatter reports whether a rule of p speaks of one of the names.
func NamesMatter(p banger.Policy, names []string) bool { return namesMatter(ready(p), names) }

func namesMatter(rules []rule, names []string) bool {
	return slices.ContainsFunc(rules, func(r rule) bool {
		return r.named && slices.ContainsFunc(names, func(n string) bool { return matchName(r.To, n) })
	})
}
