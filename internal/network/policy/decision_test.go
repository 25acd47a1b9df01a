package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"banger"
	"banger/internal/ipaddr"
	"banger/internal/network"
	"banger/internal/notation"
)

func parsed(t *testing.T, text string) banger.Policy {
	t.Helper()
	p, err := notation.ParsePolicy(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func pick[T any](rnd *rand.Rand, list ...T) T { return list[rnd.IntN(len(list))] }

// TestASuggestedRuleAllowsWhatWasRefused refuses random flows by random policies. In front of the policy, the rule that
// is suggested must allow the flow, and no flow to another port or by another protocol.
func TestASuggestedRuleAllowsWhatWasRefused(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	rules := []string{"deny any", "deny any tcp", "deny 8.8.8.8", "deny *.example", "deny host", "deny private",
		"allow 8.8.4.4", "deny a.example tcp:80", "deny 10.1.2.3 udp", "deny 169.254.0.0/16"}
	suggested := 0
	for range 3000 {
		text := pick(rnd, rules...) + "\n" + pick(rnd, rules...) + "\ndefault " + pick(rnd, "allow", "deny")
		p := parsed(t, text)
		addr := netip.MustParseAddr(pick(rnd, "8.8.8.8", "8.8.4.4", "10.1.2.3", "169.254.169.254", "192.168.1.5", "127.0.0.1",
			"224.0.0.1", "10.0.2.2", "10.0.2.3", "10.0.2.9"))
		k := network.FlowKey{Protocol: pick(rnd, network.Protocols()...), Destination: netip.AddrPortFrom(addr, 80)}
		if k.Protocol == network.ICMP {
			k.Destination = netip.AddrPortFrom(addr, 0)
		}
		names := pick(rnd, nil, []string{"a.example"}, []string{`no\.name`, "a.example", "long.a.example"}, []string{"."})
		route := pick(rnd, ipaddr.Elsewhere, ipaddr.Elsewhere, ipaddr.Host, ipaddr.Broadcast)
		g := NewGuard(p, nil)
		d := g.Explain(k, names, route)
		what := fmt.Sprintf("%s %s as %q, route %q, is refused by %q of\n%s", k.Protocol, k.Destination, names, route,
			d.Rule, text)
		closed := unreachable(addr) || network.UserSubnet.Contains(addr) || route == ipaddr.Broadcast
		if addr == network.UserGateway {
			closed = k.Protocol == network.ICMP
		}
		switch {
		case d.Allowed && d.Suggested == nil:
			continue
		case d.Allowed || closed != (d.Suggested == nil):
			t.Fatalf("%v is suggested; %s", d.Suggested, what)
		case closed:
			continue
		}
		suggested++
		p.Rules = append([]banger.Rule{*d.Suggested}, p.Rules...)
		if after := NewGuard(p, nil).Explain(k, names, route); !after.Allowed {
			t.Fatalf("%q does not help; %s", d.Suggested, what)
		}
		other := k
		other.Destination = netip.AddrPortFrom(addr, 81)
		if k.Protocol == network.ICMP {
			other.Protocol = network.UDP
		}
		if NewGuard(p, nil).Explain(other, names, route).Allowed != g.Explain(other, names, route).Allowed {
			t.Fatalf("%q changes more; %s", d.Suggested, what)
		}
	}
	if suggested < 1000 {
		t.Errorf("only %d rules were suggested", suggested)
	}
}

// TestTheRuleForAName refuses names. The suggested rule is about the first name of the chain that is refused.
func TestTheRuleForAName(t *testing.T) {
	for _, c := range []struct {
		policy string
		chain  []string
		want   string
	}{
		{"deny", []string{"a.example"}, "allow a.example"},
		{"allow a.example\ndeny any", []string{"a.example", "b.example"}, ""}, // an alias needs no rule
		{"deny *.b.example\ndefault allow", []string{"a.example", "x.b.example"}, "allow x.b.example"},
		{"deny", []string{`no\.name`}, ""},
		{"deny", []string{"host.docker.internal"}, ""},
	} {
		var told []banger.Decision
		g := NewGuard(parsed(t, c.policy), func(d banger.Decision) { told = append(told, d) })
		g.RefuseName(c.chain, 1, "why")
		got := ""
		if r := told[0].Suggested; r != nil {
			got = r.String()
		}
		if got != c.want {
			t.Errorf("for %q by %q it is %q, not %q", c.chain, c.policy, got, c.want)
		}
	}
}

// TestARuleCountsForATime lets rules count in front of a policy: about flows, names and the host.
func TestARuleCountsForATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGuard(parsed(t, "deny any"), nil)
		k := network.FlowKey{Protocol: network.TCP, Source: 1, Destination: netip.AddrPortFrom(network.UserGateway, 80)}
		reaches := func() string {
			_, _, flow := g.Admit(k)
			name, _ := g.MayResolve([]string{"a.example"})
			host, _ := g.MayReachHost()
			return fmt.Sprint(flow, name, host)
		}
		once := func(text string, span time.Duration) {
			r, err := notation.ParseRule(text)
			if err == nil {
				err = g.AllowOnce(r, time.Now().Add(span))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		once("allow a.example", time.Minute)
		once("allow host tcp:80", 2*time.Second)
		once("allow a.example", time.Second) // replaces the minute
		if _, rule := g.MayReachHost(); rule != "once: allow host tcp:80" {
			t.Errorf("the rule is called %q", rule)
		}
		g.Set(parsed(t, "deny host"))
		for after, want := range []string{"true true true", "true false true", "false false false"} {
			if got := reaches(); got != want {
				t.Errorf("after %d s it is %s, not %s", after, got, want)
			}
			time.Sleep(time.Second)
		}
		for i := range maxOnce {
			once(fmt.Sprintf("allow %d.example", i), time.Second)
		}
		if err := g.AllowOnce(banger.Rule{Action: banger.Allow, To: banger.ToAny}, time.Now()); err == nil {
			t.Error("one more than the largest number is taken")
		}
		time.Sleep(time.Second)
		once("allow any", time.Second)
	})
}
