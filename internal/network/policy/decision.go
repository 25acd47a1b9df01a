package policy

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/ipaddr"
	"banger/internal/network"
)

// maxName is the largest size of the names in a decision, in bytes. An address can have 64 names, and thousands of
// decisions are kept.
const maxName = 512

// Report gives d to the guard's owner. It sets the time of d.
func (g *Guard) Report(d banger.Decision) {
	if g.decided == nil {
		return
	}
	d.Time = time.Now()
	if len(d.Name) > maxName { // names are ASCII (see package dns)
		d.Name = strings.Clone(d.Name[:maxName]) + "…"
	}
	g.decided(d)
}

// RefuseName reports that rule forbids a name. chain is the name in the question and, in an answer, the aliases that
// it leads to. source is the guest's port. For a name of the host it suggests no rule, because a rule about the host
// would open all of its ports.
func (g *Guard) RefuseName(chain []string, source uint16, rule string) {
	d := banger.Decision{Protocol: "dns", Source: source, Name: strings.Join(chain, " -> "), Rule: rule}
	for i := range chain {
		if slices.Contains(banger.HostNames, chain[i]) {
			break
		}
		if ok, _ := g.MayResolve(chain[:i+1]); !ok {
			d.Suggested = checked(banger.Rule{Action: banger.Allow, To: chain[i]})
			break
		}
	}
	g.Report(d)
}

// decision returns what is reported of a flow.
func decision(k network.FlowKey, names []string, route ipaddr.Route, ok bool, rule string) banger.Decision {
	d := banger.Decision{
		Allowed:  ok,
		Protocol: string(k.Protocol),
		Source:   k.Port(),
		Address:  k.Destination.Addr().String(),
		Port:     k.Destination.Port(),
		Name:     strings.Join(names, ","),
		Rule:     rule,
	}
	if !ok {
		d.Suggested = suggestion(k, names, route)
	}
	return d
}

// suggestion returns the rule that allows a refused flow and nothing else, or nil if no rule can. A rule about a name
// opens no address of a closed class, so such an address is suggested itself.
func suggestion(k network.FlowKey, names []string, route ipaddr.Route) *banger.Rule {
	addr := k.Destination.Addr()
	switch {
	case isOwn(addr):
		if addr != network.UserGateway || k.Protocol == network.ICMP {
			return nil
		}
		return RuleFor(k, banger.ToHost)
	case neverReached(addr, route):
		return nil
	case classOf(addr, route == ipaddr.Host) == "":
		shortest := func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) }
		for _, name := range slices.SortedFunc(slices.Values(names), shortest) { // others are often those of machines
			if r := RuleFor(k, name); r != nil {
				return r
			}
		}
	}
	return RuleFor(k, addr.String())
}

// RuleFor returns the rule that allows flows with the protocol and the port of k to a destination, or nil if there is
// no such rule.
func RuleFor(k network.FlowKey, to string) *banger.Rule {
	r := banger.Rule{Action: banger.Allow, To: to}
	switch k.Protocol {
	case network.ICMP:
		r.Protocol = string(k.Protocol)
	case network.TCP, network.UDP:
		port := k.Destination.Port()
		r.Protocol, r.Ports = string(k.Protocol), []banger.PortRange{{First: port, Last: port}}
	}
	return checked(r)
}

// checked returns r if it is valid. Guests ask for names that are none.
func checked(r banger.Rule) *banger.Rule {
	if r.Check() != nil {
		return nil
	}
	return &r
}

// maxOnce is how many rules count for a time together.
const maxOnce = 100

// AllowOnce lets r, which is valid, count in front of the policy until a time. Flows that it has allowed may go on
// after that. If r counts for a time already, that time is replaced.
func (g *Guard) AllowOnce(r banger.Rule, until time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inForce()
	text := "once: " + r.String()
	g.once = slices.DeleteFunc(g.once, func(o rule) bool { return o.text == text })
	if len(g.once) >= maxOnce {
		return banger.Errorf(banger.CodeConflict, "%d rules are allowed once already", maxOnce).
			WithHint("wait until one of them ends, or write the rule into the policy")
	}
	once := ready(banger.Policy{Rules: []banger.Rule{r}})[0]
	once.text, once.until = text, until
	g.once = append(g.once, once)
	g.all = slices.Concat(g.once, g.rules)
	return nil
}

// inForce returns the rules that count now, in their order. The caller holds g.mu.
func (g *Guard) inForce() []rule {
	if len(g.once) == 0 {
		return g.all
	}
	now := time.Now()
	over := func(r rule) bool { return !now.Before(r.until) }
	if slices.ContainsFunc(g.once, over) {
		g.once = slices.DeleteFunc(g.once, over)
		g.all = slices.Concat(g.once, g.rules)
	}
	return g.all
}
