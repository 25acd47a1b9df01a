package network

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"banger"
	"banger/internal/ipaddr"
)

// never lists what no rule opens: packets to these have no meaning outside of the
// guest, or would reach the host's own services.
var never = ipaddr.Prefixes(ipaddr.Loopback, ipaddr.Nowhere, ipaddr.Multicast)

// localNetworks lists the local networks (RFC 1918, RFC 6598). The metadata service of a cloud
// lies within them.
var localNetworks = ipaddr.Prefixes(ipaddr.Private)

// special lists what is closed unless a rule names it.
var special = ipaddr.Prefixes(ipaddr.LinkLocal, ipaddr.Metadata, ipaddr.Reserved, ipaddr.Private)

func within(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// The built-in rules, as denials tell them. A denied address has one of them as its class.
const (
	ruleNever    = "built in: such addresses are never reachable"
	ruleSpecial  = "built in: private, link-local and metadata addresses need a rule that names them"
	ruleMetadata = "built in: metadata addresses need a rule that names them"
	ruleHost     = "built in: the host's own addresses need a rule that names them"
)

// Guard decides what one guest may reach. It also remembers which addresses the
// guest was told for which names, so that rules may speak of names.
type Guard struct {
	denied func(banger.Denial)
	route  func(netip.Addr) ipaddr.Route

	mu      sync.Mutex
	rules   []rule
	policy  string // the default
	learned map[netip.Addr]map[string]time.Time

	remembered int // names in learned
}

// rule is a banger.Rule made ready.
type rule struct {
	banger.Rule
	prefix  netip.Prefix // of a rule with an address
	private bool
	names   bool // prefix lies within special addresses, so that it names them
}

// NewGuard returns a guard that follows p, which is valid, and gives denials to
// denied, unless it is nil.
func NewGuard(p banger.Policy, denied func(banger.Denial)) *Guard {
	g := &Guard{denied: denied, route: ipaddr.RouteOf, learned: map[netip.Addr]map[string]time.Time{}}
	g.set(p)
	return g
}

func (g *Guard) set(p banger.Policy) {
	rules := ready(p)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rules, g.policy = rules, p.Default
}

func ready(p banger.Policy) []rule {
	var rules []rule
	for _, r := range p.Rules {
		c := rule{Rule: r, private: r.To == banger.ToPrivate}
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

// admit decides on a new flow and returns where it really goes.
func (g *Guard) admit(f *flow) (netip.AddrPort, bool) {
	f.names = g.namesOf(f.dst.Addr(), time.Now())
	target, ok, why := g.decide(f)
	if !ok {
		g.deny(banger.Denial{Protocol: string(f.proto), Source: f.source(), Address: f.dst.Addr().String(),
			Port: f.dst.Port(), Name: strings.Join(f.names, ","), Rule: why})
	}
	return target, ok
}

// stillAllows decides on a flow once more, with the names it began with.
func (g *Guard) stillAllows(f *flow) bool {
	if f.proto == forwarded || f.proto == forwardedUDP {
		return true
	}
	_, ok, _ := g.decide(f)
	return ok
}

func (g *Guard) decide(f *flow) (target netip.AddrPort, ok bool, why string) {
	addr := f.dst.Addr()
	if addr == UserGateway || addr == UserDNS {
		return g.decideHost(f)
	}
	route := g.route(addr)
	if within(never, addr) || UserSubnet.Contains(addr) || route == ipaddr.Broadcast {
		return f.dst, false, ruleNever
	}
	class := classOf(addr, route == ipaddr.Host)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.rules {
		if !r.matches(f) || !r.to(addr, f.names, class) {
			continue
		}
		return f.dst, r.Action == banger.Allow, r.String()
	}
	if class != "" {
		return f.dst, false, class
	}
	return f.dst, g.policy == banger.Allow, "default " + g.policy
}

// classOf returns the built-in rule that closes an address, "" for none.
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

// decideHost maps the gateway's ports to the host's loopback when a rule says so.
func (g *Guard) decideHost(f *flow) (target netip.AddrPort, ok bool, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.rules {
		if r.To == banger.ToHost && r.matches(f) && f.proto != ICMP && f.dst.Addr() == UserGateway {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), f.dst.Port()), r.Action == banger.Allow, r.String()
		}
	}
	return f.dst, false, ruleHost
}

// matches looks at protocol and port only.
func (r *rule) matches(f *flow) bool {
	if r.Protocol != "" && r.Protocol != string(f.proto) {
		return false
	}
	for _, p := range r.Ports {
		if f.dst.Port() >= p.First && f.dst.Port() <= p.Last {
			return true
		}
	}
	return len(r.Ports) == 0
}

// to looks at the destination. An allowing rule opens an address of a closed class
// only when it names that address itself: a name is what somebody else's DNS says. A
// network names special addresses within it, but none of the host or of a metadata service.
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

// matchName says whether name is pattern's, which may begin with "*." for all names
// below a domain. It compares labels, of which one may have a dot in it (RFC 1035, 5.1).
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

// mayResolve decides on a question. chain is the name asked for and, in an answer,
// the aliases that it leads to: an alias that is denied denies the name.
func (g *Guard) mayResolve(chain []string) (ok bool, why string) {
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
	for _, r := range g.rules {
		named := !r.prefix.IsValid() && !r.private && r.To != banger.ToAny && r.To != banger.ToHost && matchName(r.To, name)
		if r.Action == banger.Deny && len(r.Ports) == 0 && r.Protocol == "" && (named || r.To == banger.ToAny && !alias) {
			return false, r.String()
		}
		if r.Action == banger.Allow && (named || r.To == banger.ToAny) {
			return true, ""
		}
	}
	return alias || g.policy == banger.Allow, "default " + g.policy
}

// mayAnswer says whether the guest may be told addr for a name: one of a closed
// class only when a rule names it, so that nobody's DNS leads into the local
// network (rebinding).
func (g *Guard) mayAnswer(addr netip.Addr) bool {
	route := g.route(addr)
	if within(never, addr) || route == ipaddr.Broadcast {
		return false
	}
	class := classOf(addr, route == ipaddr.Host)
	if class == "" {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.rules {
		if r.Action == banger.Allow && r.To != banger.ToAny && r.To != banger.ToHost && r.to(addr, nil, class) {
			return true
		}
	}
	return false
}

// Bounds of what a guard remembers.
const (
	maxLearned   = 16384           // names of all addresses together
	maxNames     = 64              // names of one address
	learnedGrace = 5 * time.Second // how long after an answer a connection to it may begin at least
	maxLearnTTL  = 24 * time.Hour
)

// learn remembers that the guest was told addr for name.
func (g *Guard) learn(addr netip.Addr, name string, ttl time.Duration, now time.Time) {
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
	until := now.Add(min(max(ttl, learnedGrace), maxLearnTTL))
	if old, known := names[name]; known && old.After(until) || !known && (len(names) >= maxNames || g.remembered >= maxLearned) {
		return
	} else if !known {
		g.remembered++
	}
	names[name] = until
}

func (g *Guard) namesOf(addr netip.Addr, now time.Time) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for name, until := range g.learned[addr] {
		if until.After(now) {
			out = append(out, name)
		}
	}
	return out
}

// forget drops what has expired.
func (g *Guard) forget(now time.Time) {
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

// maxDeniedName bounds the names in a denial, in bytes: an address can have 64 names, and of
// denials a thousand are kept.
const maxDeniedName = 512

func (g *Guard) deny(d banger.Denial) {
	if g.denied != nil {
		d.Time = time.Now()
		if len(d.Name) > maxDeniedName { // names are ASCII (see package dns)
			d.Name = strings.Clone(d.Name[:maxDeniedName]) + "…"
		}
		g.denied(d)
	}
}
