package network

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"banger"
	"banger/internal/ipaddr"
)

// TestCompiledPoliciesSayWhatTheGuardSays compares the cells of random policies
// with Guard.decide at random destinations.
func TestCompiledPoliciesSayWhatTheGuardSays(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[rnd.IntN(len(list))] }
	addrs := []string{"8.8.8.8", "8.8.8.9", "8.8.0.0", "1.1.1.1", "10.1.2.3", "10.1.2.4", "169.254.169.254", "192.168.1.5", "172.16.9.9", "127.0.0.1",
		"224.0.0.1", "198.51.100.7", "100.64.1.1", "0.0.0.0", "255.255.255.255", "9.255.255.255", "11.0.0.0", "168.63.129.16", "192.0.0.9", "8.8.9.0"}
	names := []string{"a.example", "b.example", "x.a.example"}
	network := BridgeNetwork{Name: "n", Subnet: UserSubnet, Isolated: true}
	for range 3000 {
		p := banger.Policy{Default: pick(banger.Allow, banger.Deny)}
		for range rnd.IntN(8) {
			r := banger.Rule{Action: pick(banger.Allow, banger.Deny), Protocol: pick("", "tcp", "udp", "icmp"),
				To: pick("any", "private", "host", "8.8.8.8", "8.8.8.0/24", "8.0.0.0/7", "10.1.2.3", "10.1.0.0/16", "10.0.0.0/8", "8.0.0.0/5", "169.254.169.254",
					"192.168.1.5", "0.0.0.0/0", "a.example", "*.example", "*.a.example")}
			if r.Protocol == "tcp" || r.Protocol == "udp" {
				for range rnd.IntN(3) {
					first := uint16(1 + rnd.IntN(100))
					r.Ports = append(r.Ports, banger.PortRange{First: first, Last: first + uint16(rnd.IntN(60))})
				}
			}
			p.Rules = append(p.Rules, r)
		}
		if err := p.Check(); err != nil {
			t.Fatal(err)
		}
		port := BridgePort{ID: "0123456789ab", Network: "n", Address: UserGuest, Policy: p}
		c := BridgeConfig{Networks: []BridgeNetwork{network}, Ports: []BridgePort{port}}
		cells := c.cells(port)
		for range 30 {
			local := rnd.IntN(2) == 0
			addr := netip.MustParseAddr(addrs[rnd.IntN(len(addrs))])
			var told []string
			for _, n := range names {
				if rnd.IntN(3) == 0 {
					told = append(told, n)
				}
			}
			if rnd.IntN(10) == 0 {
				addr, local, told = UserGateway, true, nil
			}
			proto, dport := protocolOrder[rnd.IntN(3)], uint16(rnd.IntN(200))
			if proto == ICMP {
				dport = 0
			}
			guard := NewGuard(p, nil)
			guard.route = func(netip.Addr) ipaddr.Route { return map[bool]ipaddr.Route{true: ipaddr.Host}[local] }
			f := &flow{flowKey: flowKey{proto: proto, dst: netip.AddrPortFrom(addr, dport)}, names: told}
			_, want, why := guard.decide(f)
			if addr == UserGateway && (proto == ICMP || dport == 53) {
				want, why = true, "the bridge's gateway answers DNS and echo"
			}
			what := fmt.Sprintf("%s:%d %s, told %v, local %v; the guard says %v (%s)\n%s", addr, dport, proto, told, local, want, why, p)
			if addr == UserGateway {
				addr = network.Gateway() // which is not the same one in both modes
			}
			if got := c.mayReach(port, netip.AddrPortFrom(addr, dport), proto, told, local); got != want {
				t.Fatalf("mayReach says %v to %s", got, what)
			}
			got := verdict(t, cells, addr, proto, dport, local)
			if rules := ready(p); namesMatter(rules, told) && !within(never, addr) {
				got = verdict(t, decide(p, rules, addr, told, local).partition(local, number(addr)), addr, proto, dport, local)
			}
			if got != want {
				t.Fatalf("cells say %v to %s", got, what)
			}
		}
	}
}

// verdict fails the test when cells overlap.
func verdict(t *testing.T, cells []cell, addr netip.Addr, proto Protocol, port uint16, local bool) bool {
	t.Helper()
	var found []cell
	for _, c := range cells {
		n := protocols[proto]
		if c.local == local && c.first <= number(addr) && number(addr) <= c.last && c.proto[0] <= n && n <= c.proto[1] && c.ports.First <= port && port <= c.ports.Last {
			found = append(found, c)
		}
	}
	if len(found) > 1 {
		t.Fatalf("%v are of one packet", found)
	}
	return len(found) == 1 && found[0].allow
}

func TestNetworksThatCannotBeAreRefused(t *testing.T) {
	good := func() BridgeConfig {
		return BridgeConfig{
			Networks: []BridgeNetwork{{Name: "a", Subnet: netip.MustParsePrefix("172.30.1.0/24")}, {Name: "b", Subnet: netip.MustParsePrefix("172.30.2.0/24")}},
			Ports: []BridgePort{
				{ID: "000000000001", Network: "a", Address: netip.MustParseAddr("172.30.1.2"), MAC: MAC("1"), Policy: banger.Policy{Default: banger.Deny}},
				{ID: "000000000002", Network: "a", Address: netip.MustParseAddr("172.30.1.3"), MAC: MAC("2"), Policy: banger.Policy{Default: banger.Deny}}},
		}
	}
	taken := prefixes("192.168.1.0/24", "0.0.0.0/0")
	for name, break_ := range map[string]func(*BridgeConfig){
		"name":               func(c *BridgeConfig) { c.Networks[0].Name = "a.b" },
		"no subnet":          func(c *BridgeConfig) { c.Networks[0].Subnet = netip.Prefix{} },
		"IPv6":               func(c *BridgeConfig) { c.Networks[0].Subnet = netip.MustParsePrefix("fd00::/64") },
		"bits":               func(c *BridgeConfig) { c.Networks[0].Subnet = netip.MustParsePrefix("172.30.1.1/24") },
		"too small":          func(c *BridgeConfig) { c.Networks[0].Subnet = netip.MustParsePrefix("172.30.1.0/31") },
		"public":             func(c *BridgeConfig) { c.Networks[0].Subnet = netip.MustParsePrefix("8.8.8.0/24") },
		"overlap":            func(c *BridgeConfig) { c.Networks[1].Subnet = netip.MustParsePrefix("172.30.0.0/16") },
		"the host's network": func(c *BridgeConfig) { c.Networks[1].Subnet = netip.MustParsePrefix("192.168.0.0/16") },
		"same name":          func(c *BridgeConfig) { c.Networks[1].Name = "a" },
		"id":                 func(c *BridgeConfig) { c.Ports[0].ID = "../0000000000" },
		"network":            func(c *BridgeConfig) { c.Ports[0].Network = "c" },
		"address outside":    func(c *BridgeConfig) { c.Ports[0].Address = netip.MustParseAddr("172.30.2.2") },
		"gateway":            func(c *BridgeConfig) { c.Ports[0].Address = netip.MustParseAddr("172.30.1.1") },
		"broadcast":          func(c *BridgeConfig) { c.Ports[0].Address = netip.MustParseAddr("172.30.1.255") },
		"same address":       func(c *BridgeConfig) { c.Ports[1].Address = c.Ports[0].Address },
		"same MAC":           func(c *BridgeConfig) { c.Ports[1].MAC = c.Ports[0].MAC },
		"group MAC":          func(c *BridgeConfig) { c.Ports[0].MAC = "01:00:5e:00:00:01" },
		"the bridge's MAC":   func(c *BridgeConfig) { c.Ports[0].MAC = c.Networks[0].mac().String() },
		"policy":             func(c *BridgeConfig) { c.Ports[0].Policy.Default = "" },
		"policy too long": func(c *BridgeConfig) {
			for i := range 1000 {
				c.Ports[0].Policy.Rules = append(c.Ports[0].Policy.Rules, banger.Rule{Action: banger.Allow, To: addrOf(uint32(8<<24 + 2*i)).String(),
					Protocol: "tcp", Ports: []banger.PortRange{{First: 1, Last: 1}, {First: 3, Last: 3}, {First: 5, Last: 5}}})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := good()
			break_(&c)
			if code := banger.CodeOf(c.Check(taken)); code != banger.CodeInvalid && code != banger.CodeConflict {
				t.Errorf("Check says %v", c.Check(taken))
			}
		})
	}
	if err := good().Check(taken); err != nil {
		t.Errorf("a good one is refused: %v", err)
	}
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}
