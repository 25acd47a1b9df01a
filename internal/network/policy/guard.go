// Package policy decides what a guest may reach. Guard decides on single flows, and on names in
// DNS questions and answers. Compile says the same of all destinations at once, for tables of
// the kernel. The lists of special addresses are those of ipaddr.
//
// The package must not know of sockets, packets, nftables or VMMs: its callers act on what it
// decides.
package policy

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"banger"
	"banger/internal/ipaddr"
	"banger/internal/network"
)

// never lists addresses that no rule opens: packets to them have no meaning outside of the guest,
// or would reach the host's own services.
var never = ipaddr.Prefixes(ipaddr.Loopback, ipaddr.Nowhere, ipaddr.Multicast)

// localNetworks lists the local networks (RFC 1918, RFC 6598). The metadata service of some clouds
// is in them.
var localNetworks = ipaddr.Prefixes(ipaddr.Private)

// special lists addresses that are closed unless a rule names them.
var special = ipaddr.Prefixes(ipaddr.LinkLocal, ipaddr.Metadata, ipaddr.Reserved, ipaddr.Private)

// unreachable reports whether no rule can open addr.
func unreachable(addr netip.Addr) bool { return within(never, addr) }

// neverReached reports whether no rule can open addr, to which the host has this route.
func neverReached(addr netip.Addr, route ipaddr.Route) bool {
	return unreachable(addr) || network.UserSubnet.Contains(addr) || route == ipaddr.Broadcast
}

func within(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// The names of the built-in rules in decisions. A denied address has one of them as its class.
const (
	ruleNever    = "built in: such addresses are never reachable"
	ruleSpecial  = "built in: private, link-local and metadata addresses need a rule that names them"
	ruleMetadata = "built in: metadata addresses need a rule that names them"
	ruleHost     = "built in: the host's own addresses need a rule that names them"
)

// Guard decides what one guest may reach. It remembers for which names the guest was given which
// addresses, because rules can contain names. Its methods may be called concurrently.
type Guard struct {
	decided func(banger.Decision)

	mu      sync.Mutex
	rules   []rule // of the policy
	policy  string // the default
	once    []rule // that count in front of the policy for a time
	all     []rule // once and rules
	learned map[netip.Addr]map[string]time.Time

	remembered int // names in learned
}

// rule is a banger.Rule made ready.
type rule struct {
	banger.Rule
	prefix  netip.Prefix // of a rule with an address
	private bool
	names   bool // prefix lies within special addresses, so that it names them
	named   bool // it is about the name of a host or a domain
	whole   bool // it is about all ports and protocols
	text    string
	until   time.Time // when it ends, if it is one of Guard.once
}

// NewGuard returns a guard that follows p, which is valid, and gives what it decides to decided, unless that is nil.
func NewGuard(p banger.Policy, decided func(banger.Decision)) *Guard {
	g := &Guard{decided: decided, learned: map[netip.Addr]map[string]time.Time{}}
	g.Set(p)
	return g
}

// Set replaces the policy by p, which must be valid. The remembered names and the rules that are allowed once stay.
func (g *Guard) Set(p banger.Policy) {
	rules := ready(p)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rules, g.policy = rules, p.Default
	g.all = slices.Concat(g.once, g.rules)
}

func ready(p banger.Policy) []rule {
	var rules []rule
	for _, r := range p.Rules {
		c := rule{Rule: r, private: r.To == banger.ToPrivate, named: r.IsName(),
			whole: len(r.Ports) == 0 && r.Protocol == "", text: r.String()}
		if prefix, err := netip.ParsePrefix(r.To); err == nil {
			c.prefix = prefix
		} else if a, err := netip.ParseAddr(r.To); err == nil {
			c.prefix = netip.PrefixFrom(a, a.BitLen())
		}
		for _, s := range special {
			c.names = c.names || c.prefix.IsValid() && s.Contains(c.prefix.Addr()) && c.prefix.Bits() >= s.Bits()
		}
		rules = append(rules, c)
	}
	return rules
}

// Admit decides on a new flow of a user network, and reports that. It returns the real destination of the flow, and
// the names for which the guest was given the destination's address.
func (g *Guard) Admit(k network.FlowKey) (target netip.AddrPort, names []string, ok bool) {
	names = g.namesFor(k.Destination.Addr(), time.Now())
	route := routeOf(k)
	target, ok, why := g.decide(k, names, route)
	g.Report(decision(k, names, route, ok, why))
	return target, names, ok
}

// StillAllows decides on a flow again, with the names that it began with. It reports nothing.
func (g *Guard) StillAllows(f *network.Flow) bool {
	if f.Protocol == network.ForwardedTCP || f.Protocol == network.ForwardedUDP {
		return true
	}
	_, ok, _ := g.decide(f.FlowKey, f.Names, routeOf(f.FlowKey))
	return ok
}

// Explain decides on a flow and returns the decision, but does not report it. route is the host's route to the
// destination, and names are those for which the guest was given its address.
func (g *Guard) Explain(k network.FlowKey, names []string, route ipaddr.Route) banger.Decision {
	_, ok, why := g.decide(k, names, route)
	return decision(k, names, route, ok, why)
}

// isOwn reports whether addr is one of the user network's own addresses.
func isOwn(addr netip.Addr) bool { return addr == network.UserGateway || addr == network.UserDNS }

// routeOf returns the host's route to a flow's destination. The user network's own addresses have none.
func routeOf(k network.FlowKey) ipaddr.Route {
	if isOwn(k.Destination.Addr()) {
		return ipaddr.Elsewhere
	}
	return ipaddr.RouteOf(k.Destination.Addr())
}

func (g *Guard) decide(k network.FlowKey, names []string, route ipaddr.Route) (target netip.AddrPort, ok bool,
	why string) {
	if isOwn(k.Destination.Addr()) {
		return g.decideHost(k)
	}
	ok, why = g.decideRouted(k, names, route)
	return k.Destination, ok, why
}

func (g *Guard) decideRouted(k network.FlowKey, names []string, route ipaddr.Route) (ok bool, why string) {
	addr := k.Destination.Addr()
	if neverReached(addr, route) {
		return false, ruleNever
	}
	class := classOf(addr, route == ipaddr.Host)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.inForce() {
		if !r.matches(k) || !r.to(addr, names, class) {
			continue
		}
		return r.Action == banger.Allow, r.text
	}
	if class != "" {
		return false, class
	}
	return g.policy == banger.Allow, "default " + g.policy
}

// classOf returns the built-in rule that closes an address, or "" if none does.
func classOf(addr netip.Addr, local bool) string {
	switch {
	case local:
		return ruleHost
	case ipaddr.KindOf(addr) == ipaddr.Metadata:
		return ruleMetadata
	case within(special, addr):
		return ruleSpecial
	}
	return ""
}

// decideHost maps the gateway's ports to the host's loopback if a rule allows that.
func (g *Guard) decideHost(k network.FlowKey) (target netip.AddrPort, ok bool, why string) {
	toGateway := k.Protocol != network.ICMP && k.Destination.Addr() == network.UserGateway
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.inForce() {
		if toGateway && r.To == banger.ToHost && r.matches(k) {
			loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
			return netip.AddrPortFrom(loopback, k.Destination.Port()), r.Action == banger.Allow, r.text
		}
	}
	return k.Destination, false, ruleHost
}

// MayReachHost reports whether a rule lets the guest reach at least one port of the host's loopback address. Otherwise
// it returns the rule that forbids that.
func (g *Guard) MayReachHost() (ok bool, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.inForce() {
		if r.To != banger.ToHost {
			continue
		}
		if r.Action == banger.Allow {
			return true, r.text
		}
		if r.whole {
			return false, r.text
		}
	}
	return false, ruleHost
}

// matches compares only the protocol and the port.
func (r *rule) matches(k network.FlowKey) bool {
	if r.Protocol != "" && r.Protocol != string(k.Protocol) {
		return false
	}
	for _, p := range r.Ports {
		if k.Destination.Port() >= p.First && k.Destination.Port() <= p.Last {
			return true
		}
	}
	return len(r.Ports) == 0
}

// to compares the destination. An allowing rule opens an address of a closed class only if it
// contains that address itself, because foreign DNS servers decide what a name means. A network in
// a rule opens special addresses within it, but no address of the host or of a metadata service.
func (r *rule) to(addr netip.Addr, names []string, class string) bool {
	closed := class != "" && r.Action == banger.Allow
	single := closed && class != ruleSpecial
	switch {
	case r.To == banger.ToHost:
		return false
	case r.To == banger.ToAny:
		return !closed
	case r.private:
		return within(localNetworks, addr) && !single
	case r.prefix.IsValid():
		return r.prefix.Contains(addr) && (!closed || r.names && !single || r.prefix.IsSingleIP())
	}
	for _, n := range names {
		if !closed && matchName(r.To, n) {
			return true
		}
	}
	return false
}

// matchName reports whether pattern matches name. The pattern may begin with "*." for all names
// below a domain. matchName compares labels, which may contain a dot (RFC 1035, 5.1).
func matchName(pattern, name string) bool {
	want, have := dns.SplitDomainName(pattern), dns.SplitDomainName(name)
	if len(want) > 0 && want[0] == "*" {
		want = want[1:]
		if len(have) <= len(want) {
			return false
		}
		have = have[len(have)-len(want):]
	}
	return slices.EqualFunc(want, have, strings.EqualFold)
}

// MayResolve decides on a question, and returns the rule that forbids it. chain is the name in the
// question and, in an answer, the aliases that it leads to. A denied alias denies the name.
func (g *Guard) MayResolve(chain []string) (ok bool, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, name := range chain {
		ok, why = g.nameAllowed(name, i > 0)
		if !ok {
			return false, why
		}
	}
	return true, ""
}

func (g *Guard) nameAllowed(name string, alias bool) (bool, string) {
	for _, r := range g.inForce() {
		named := r.named && matchName(r.To, name)
		if r.Action == banger.Deny && r.whole && (named || r.To == banger.ToAny && !alias) {
			return false, r.text
		}
		if r.Action == banger.Allow && (named || r.To == banger.ToAny) {
			return true, ""
		}
	}
	return alias || g.policy == banger.Allow, "default " + g.policy
}

// MayAnswer reports whether the guest may be given addr as an answer. An address of a closed class
// needs a rule that contains it. Otherwise foreign DNS could lead into the local network
// (rebinding).
func (g *Guard) MayAnswer(addr netip.Addr) bool {
	route := ipaddr.RouteOf(addr)
	if unreachable(addr) || route == ipaddr.Broadcast {
		return false
	}
	class := classOf(addr, route == ipaddr.Host)
	if class == "" {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.inForce() {
		if r.Action == banger.Allow && r.To != banger.ToAny && r.To != banger.ToHost && r.to(addr, nil, class) {
			return true
		}
	}
	return false
}

// Bounds of what a guard remembers.
const (
	MaxNames     = 64              // names of one address
	MaxTTL       = 24 * time.Hour  // of a name
	maxLearned   = 16384           // names of all addresses together
	learnedGrace = 5 * time.Second // how long after an answer a connection to its address may begin at least
)

// Lifetime returns how long a rule about a name applies to an address that was given with ttl.
func Lifetime(ttl time.Duration) time.Duration { return min(max(ttl, learnedGrace), MaxTTL) }

// Learn remembers that the guest was given addr for name, as long as there is room.
func (g *Guard) Learn(addr netip.Addr, name string, ttl time.Duration, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	names := g.learned[addr]
	if names == nil {
		if g.remembered >= maxLearned {
			return
		}
		names = map[string]time.Time{}
		g.learned[addr] = names
	}
	until := now.Add(Lifetime(ttl))
	old, known := names[name]
	full := len(names) >= MaxNames || g.remembered >= maxLearned
	if known && old.After(until) || !known && full {
		return
	} else if !known {
		g.remembered++
	}
	names[name] = until
}

func (g *Guard) namesFor(addr netip.Addr, now time.Time) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for name, until := range g.learned[addr] {
		if until.After(now) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Forget drops the names that have expired.
func (g *Guard) Forget(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for addr, names := range g.learned {
		for name, until := range names {
			if until.Before(now) {
				delete(names, name)
				g.remembered--
			}
		}
		if len(names) == 0 {
			delete(g.learned, addr)
		}
	}
}
