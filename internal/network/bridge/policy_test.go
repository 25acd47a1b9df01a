package bridge

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"banger/internal/ipaddr"
	"banger/internal/network"
	"banger/internal/network/policy"

	"banger"
)

// TestCompiledPoliciesSayWhatTheGuardSays compares the cells of random policies
// with what a Guard says at random destinations.
func TestCompiledPoliciesSayWhatTheGuardSays(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[rnd.IntN(len(list))] }
	addrs := []string{"8.8.8.8", "8.8.8.9", "8.8.0.0", "1.1.1.1", "10.1.2.3", "10.1.2.4", "169.254.169.254",
		"192.168.1.5", "172.16.9.9", "127.0.0.1",
		"224.0.0.1", "198.51.100.7", "100.64.1.1", "0.0.0.0", "255.255.255.255", "9.255.255.255", "11.0.0.0",
		"168.63.129.16", "192.0.0.9", "8.8.9.0"}
	names := []string{"a.example", "b.example", "x.a.example"}
	isolated := Network{Name: "n", Subnet: network.UserSubnet, Isolated: true}
	for range 3000 {
		p := banger.Policy{Default: pick(banger.Allow, banger.Deny)}
		for range rnd.IntN(8) {
			r := banger.Rule{Action: pick(banger.Allow, banger.Deny), Protocol: pick("", "tcp", "udp", "icmp"),
				To: pick("any", "private", "host", "8.8.8.8", "8.8.8.0/24", "8.0.0.0/7", "10.1.2.3", "10.1.0.0/16", "10.0.0.0/8",
					"8.0.0.0/5", "169.254.169.254",
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
		port := Port{ID: "0123456789ab", Network: "n", Address: network.UserGuest, Policy: p}
		c := Config{Networks: []Network{isolated}, Ports: []Port{port}}
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
				addr, local, told = network.UserGateway, true, nil
			}
			proto, dport := network.Protocols()[rnd.IntN(3)], uint16(rnd.IntN(200))
			if proto == network.ICMP {
				dport = 0
			}
			key := network.FlowKey{Protocol: proto, Destination: netip.AddrPortFrom(addr, dport)}
			route := map[bool]ipaddr.Route{true: ipaddr.Host}[local]
			d := policy.NewGuard(p, nil).Explain(key, told, route)
			want, why := d.Allowed, d.Rule
			if addr == network.UserGateway && (proto == network.ICMP || dport == 53) {
				want, why = true, "the bridge's gateway answers DNS and echo"
			}
			what := fmt.Sprintf("%s:%d %s, told %v, local %v; the guard says %v (%s)\n%s", addr, dport, proto, told, local,
				want, why, p)
			if addr == network.UserGateway {
				addr = isolated.Gateway() // which is not the same one in both modes
			}
			if got := c.mayReach(port, netip.AddrPortFrom(addr, dport), proto, told, local); got != want {
				t.Fatalf("mayReach says %v to %s", got, what)
			}
			got := verdict(t, cells, addr, proto, dport, local)
			if named := cellsOf(policy.CompileNames(p, addr, told), local); named != nil {
				got = verdict(t, named, addr, proto, dport, local)
			}
			if got != want {
				t.Fatalf("cells say %v to %s", got, what)
			}
		}
	}
}

// cellsOf returns the cells of addresses of the host, or those of other addresses.
func cellsOf(cells []policy.Cell, local bool) (out []policy.Cell) {
	for _, c := range cells {
		if c.Local == local {
			out = append(out, c)
		}
	}
	return out
}

// verdict fails the test when cells overlap.
func verdict(t *testing.T, cells []policy.Cell, addr netip.Addr, proto network.Protocol, port uint16, local bool) bool {
	t.Helper()
	var found []policy.Cell
	for _, c := range cells {
		n := proto.Number()
		if c.Local == local && c.First.Compare(addr) <= 0 && addr.Compare(c.Last) <= 0 &&
			c.Protocols[0] <= n && n <= c.Protocols[1] && c.Ports.First <= port && port <= c.Ports.Last {
			found = append(found, c)
		}
	}
	if len(found) > 1 {
		t.Fatalf("%v are of one packet", found)
	}
	return len(found) == 1 && found[0].Allow
}

func TestNetworksThatCannotBeAreRefused(t *testing.T) {
	good := func() Config {
		return Config{
			Networks: []Network{{Name: "a", Subnet: netip.MustParsePrefix("172.30.1.0/24")},
				{Name: "b", Subnet: netip.MustParsePrefix("172.30.2.0/24")}},
			Ports: []Port{
				{ID: "000000000001", Network: "a", Address: netip.MustParseAddr("172.30.1.2"), MAC: network.MAC("1"),
					Policy: banger.Policy{Default: banger.Deny}},
				{ID: "000000000002", Network: "a", Address: netip.MustParseAddr("172.30.1.3"), MAC: network.MAC("2"),
					Policy: banger.Policy{Default: banger.Deny}}},
		}
	}
	taken := prefixes("192.168.1.0/24", "0.0.0.0/0")
	for name, break_ := range map[string]func(*Config){
		"name":               func(c *Config) { c.Networks[0].Name = "a.b" },
		"no subnet":          func(c *Config) { c.Networks[0].Subnet = netip.Prefix{} },
		"IPv6":               func(c *Config) { c.Networks[0].Subnet = netip.MustParsePrefix("fd00::/64") },
		"bits":               func(c *Config) { c.Networks[0].Subnet = netip.MustParsePrefix("172.30.1.1/24") },
		"too small":          func(c *Config) { c.Networks[0].Subnet = netip.MustParsePrefix("172.30.1.0/31") },
		"public":             func(c *Config) { c.Networks[0].Subnet = netip.MustParsePrefix("8.8.8.0/24") },
		"overlap":            func(c *Config) { c.Networks[1].Subnet = netip.MustParsePrefix("172.30.0.0/16") },
		"the host's network": func(c *Config) { c.Networks[1].Subnet = netip.MustParsePrefix("192.168.0.0/16") },
		"same name":          func(c *Config) { c.Networks[1].Name = "a" },
		"id":                 func(c *Config) { c.Ports[0].ID = "../0000000000" },
		"network":            func(c *Config) { c.Ports[0].Network = "c" },
		"address outside":    func(c *Config) { c.Ports[0].Address = netip.MustParseAddr("172.30.2.2") },
		"gateway":            func(c *Config) { c.Ports[0].Address = netip.MustParseAddr("172.30.1.1") },
		"broadcast":          func(c *Config) { c.Ports[0].Address = netip.MustParseAddr("172.30.1.255") },
		"same address":       func(c *Config) { c.Ports[1].Address = c.Ports[0].Address },
		"same MAC":           func(c *Config) { c.Ports[1].MAC = c.Ports[0].MAC },
		"group MAC":          func(c *Config) { c.Ports[0].MAC = "01:00:5e:00:00:01" },
		"the bridge's MAC":   func(c *Config) { c.Ports[0].MAC = c.Networks[0].mac().String() },
		"policy":             func(c *Config) { c.Ports[0].Policy.Default = "" },
		"policy too long": func(c *Config) {
			for i := range 1000 {
				c.Ports[0].Policy.Rules = append(c.Ports[0].Policy.Rules, banger.Rule{Action: banger.Allow,
					To:       ipaddr.FromNumber(uint32(8<<24 + 2*i)).String(),
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
