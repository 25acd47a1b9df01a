package netstack_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/testing/networktest"
	"banger/internal/testing/processtest"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"banger"
	"banger/internal/network"
	"banger/internal/notation"
)

func TestEgressMatrix(t *testing.T) {
	processtest.Long(t)
	for name, c := range networktest.EgressPolicies {
		t.Run(name, func(t *testing.T) {
			internet := networktest.NewInternet(t)
			g := newGuest(t, c.Policy)
			g.In(t, func() error { return networktest.ServeOwn(t, networktest.GuestOwn) })
			for i, d := range networktest.Destinations {
				want := c.Want(i)
				for proto, try := range map[string]func(*testing.T, *guest, string, bool) string{"tcp": tryTCP, "udp": tryUDP,
					"icmp": tryPing} {
					got := try(t, g, d.Address, want != networktest.Nobody)
					if proto != "tcp" && got != networktest.Nobody { // which does not say who it is
						got = want
						if want == networktest.Nobody {
							got = "somebody"
						}
					}
					ours := d.Address == "10.0.2.2" || d.Address == "10.0.2.3" // which answer echo
					if got != want && !(want == networktest.Nobody && proto == "icmp" && ours) {
						t.Errorf("%s to %s is answered by %q, not %q", proto, d.Address, got, want)
					}
				}
			}
			for i, d := range networktest.Destinations {
				for _, proto := range []string{"tcp", "udp"} {
					want := c.Want(i)
					reached := want == networktest.World || want == networktest.TheHost
					if got := internet.Was(proto + " " + d.Address); got != reached {
						t.Errorf("%s to %s arrived: %v", proto, d.Address, got)
					}
				}
			}
		})
	}
}

// tryTCP returns the name that the server sends. A refused connection fails at once.
func tryTCP(t *testing.T, g *guest, to string, _ bool) string {
	conn, err := g.dial("tcp", to+":80")
	if err != nil {
		if errors.Is(err, syscall.ETIMEDOUT) || strings.Contains(err.Error(), "timeout") {
			t.Errorf("tcp to %s is a black hole", to)
		}
		return networktest.Nobody
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(patience))
	name, err := io.ReadAll(conn)
	if err != nil {
		t.Errorf("tcp to %s: %v", to, err)
	}
	return strings.TrimSpace(string(name))
}

// tryUDP sends a datagram and waits for its echo. If an echo is expected, it waits long; otherwise
// until the stack has handled everything before a later question.
func tryUDP(t *testing.T, g *guest, to string, due bool) string {
	conn, err := g.dial("udp", to+":80")
	if err != nil {
		return networktest.Nobody // the guest's own kernel will not
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello " + to)); err != nil {
		return networktest.Nobody
	}
	return awaitEcho(t, g, conn, due, func(b []byte) bool { return string(b) == "hello "+to })
}

func awaitEcho(t *testing.T, g *guest, conn net.Conn, due bool, mine func([]byte) bool) string {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	if !due {
		g.lookup(t, "fence.example")
		conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // for an answer that must not come
	}
	buf := make([]byte, 65536)
	n, err := conn.Read(buf)
	if err != nil || !mine(buf[:n]) {
		return networktest.Nobody
	}
	return "somebody"
}

func tryPing(t *testing.T, g *guest, to string, due bool) string {
	var conn *icmp.PacketConn
	g.In(t, func() (err error) {
		conn, err = icmp.ListenPacket("udp4", "0.0.0.0")
		return err
	})
	defer conn.Close()
	message, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 1, Seq: 7,
		Data: []byte("ping " + to)}}).Marshal(nil)
	networktest.Check(t, err)
	if _, err := conn.WriteTo(message, &net.UDPAddr{IP: net.ParseIP(to)}); err != nil {
		return networktest.Nobody
	}
	return awaitEcho(t, g, networktest.Pinged{PacketConn: conn}, due, func(b []byte) bool {
		m, err := icmp.ParseMessage(1, b)
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply {
			return false
		}
		echo, ok := m.Body.(*icmp.Echo)
		return ok && echo.Seq == 7 && string(echo.Data) == "ping "+to
	})
}

// TestRulesAreReadInOrder tries one policy with all kinds of rules.
func TestRulesAreReadInOrder(t *testing.T) {
	networktest.NewInternet(t)
	g := newGuest(t, `
		deny 8.8.8.8 tcp:80     # before a rule that would allow it
		allow 8.8.8.0/24
		allow 9.9.9.9 udp
		allow 7.7.7.7 tcp:70-90
		allow 7.7.7.8 tcp:443,8000-9000
		allow host tcp:80
		default deny`)
	for _, c := range []struct {
		proto, to string
		want      bool
	}{
		{"tcp", "8.8.8.8", false}, {"udp", "8.8.8.8", true}, {"tcp", "8.8.8.9", true}, {"tcp", "9.9.9.9", false},
		{"udp", "9.9.9.9", true},
		{"tcp", "7.7.7.7", true}, {"udp", "7.7.7.7", false}, {"tcp", "7.7.7.8", false}, {"tcp", "10.0.2.2", true},
		{"tcp", "10.0.2.3", false}, {"udp", "10.0.2.2", false},
	} {
		t.Run(c.proto+" "+c.to, func(t *testing.T) {
			try := map[string]func(*testing.T, *guest, string, bool) string{"tcp": tryTCP, "udp": tryUDP}[c.proto]
			if got := try(t, g, c.to, c.want); (got != networktest.Nobody) != c.want {
				t.Errorf("it is answered by %q", got)
			}
		})
	}
}

func TestADecisionSaysWhatWhereAndWhy(t *testing.T) {
	networktest.NewInternet(t)
	g := newGuest(t, "allow good.example\ndefault deny")
	g.zone.set("good.example", "60 A 8.8.8.8")
	g.lookup(t, "good.example")
	g.lookup(t, "bad.example")
	for _, to := range []string{"8.8.8.8:80", "8.8.4.4:80", "169.254.169.254:80", "10.0.2.2:22"} {
		if conn, err := g.dial("tcp", to); err == nil {
			conn.Close()
		}
	}
	for _, want := range []banger.Decision{
		{Protocol: "tcp", Address: "8.8.8.8", Port: 80, Name: "good.example", Allowed: true, Rule: "allow good.example"},
		{Protocol: "dns", Name: "bad.example", Rule: "default deny", Suggested: rule("allow bad.example")},
		{Protocol: "tcp", Address: "8.8.4.4", Port: 80, Rule: "default deny", Suggested: rule("allow 8.8.4.4 tcp:80")},
		{Protocol: "tcp", Address: "169.254.169.254", Port: 80, Suggested: rule("allow 169.254.169.254 tcp:80"),
			Rule: "built in: private, link-local and metadata addresses need a rule that names them"},
		{Protocol: "tcp", Address: "10.0.2.2", Port: 22, Suggested: rule("allow host tcp:22"),
			Rule: "built in: the host's own addresses need a rule that names them"},
	} {
		t.Run(fmt.Sprint(want.Protocol, want.Name, want.Address), func(t *testing.T) {
			got := g.await(t, func(d banger.Decision) bool {
				return d.Protocol == want.Protocol && d.Name == want.Name && d.Address == want.Address && d.Port == want.Port &&
					d.Rule == want.Rule && d.Allowed == want.Allowed
			})
			if time.Since(got.Time) > patience {
				t.Errorf("it is of %v", got.Time)
			}
			if fmt.Sprint(got.Suggested) != fmt.Sprint(want.Suggested) {
				t.Errorf("%v is suggested", got.Suggested)
			}
		})
	}
}

func rule(text string) *banger.Rule {
	r, err := notation.ParseRule(text)
	if err != nil {
		panic(err)
	}
	return &r
}

// TestARuleIsAllowedOnce opens a connection by a rule that counts for a time. The connection goes on when the time is
// over and when the policy changes meanwhile, and no other one begins after that.
func TestARuleIsAllowedOnce(t *testing.T) {
	i := networktest.NewInternet(t)
	g := newGuest(t, "deny")
	var ln net.Listener
	i.In(t, func() (err error) {
		ln, err = net.Listen("tcp4", "0.0.0.0:81")
		return err
	})
	t.Cleanup(func() { ln.Close() })
	if _, err := g.dial("tcp", "8.8.8.8:81"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("before, a connection ends with %v", err)
	}
	once := *rule("allow 8.8.8.8 tcp:81")
	networktest.Check(t, g.stack.AllowOnce(once, time.Now().Add(time.Hour)))
	near, err := g.dial("tcp", "8.8.8.8:81")
	networktest.Check(t, err)
	far, err := ln.Accept()
	networktest.Check(t, err)
	t.Cleanup(func() { near.Close(); far.Close() })
	g.stack.SetPolicy(banger.Policy{Default: banger.Deny, Rules: []banger.Rule{*rule("deny any")}})
	networktest.Check(t, g.stack.AllowOnce(once, time.Now())) // it is over
	if _, err := g.dial("tcp", "8.8.8.8:81"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after, a connection ends with %v", err)
	}
	fmt.Fprintln(far, "still here")
	near.SetDeadline(time.Now().Add(patience))
	if text, err := io.ReadAll(io.LimitReader(near, 11)); string(text) != "still here\n" {
		t.Errorf("the connection gives %q, %v", text, err)
	}
	g.stack.SetPolicy(banger.Policy{Default: banger.Deny})
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("when a policy is set after that, it ends with %v", err)
	}
}

// TestAChangedPolicyCutsWhatItForbids holds one connection that stays allowed and
// one that does not.
func TestAChangedPolicyCutsWhatItForbids(t *testing.T) {
	i := networktest.NewInternet(t)
	g := newGuest(t, "allow")
	var ln net.Listener
	i.In(t, func() (err error) {
		ln, err = net.Listen("tcp4", "0.0.0.0:81")
		return err
	})
	t.Cleanup(func() { ln.Close() })
	open := func(to string) (near, far net.Conn) {
		near, err := g.dial("tcp", to)
		networktest.Check(t, err)
		far, err = ln.Accept()
		networktest.Check(t, err)
		t.Cleanup(func() { near.Close(); far.Close() })
		near.SetDeadline(time.Now().Add(patience))
		return near, far
	}
	good, farGood := open("8.8.8.8:81")
	bad, farBad := open("9.9.9.9:81")
	g.stack.SetPolicy(banger.Policy{Default: banger.Deny, Rules: []banger.Rule{{Action: banger.Allow, To: "8.8.8.8"}}})
	for _, conn := range []net.Conn{bad, farBad} {
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("what is forbidden now ends with %v", err)
		}
	}
	fmt.Fprintln(farGood, "still here")
	if text, err := io.ReadAll(io.LimitReader(good, 11)); string(text) != "still here\n" {
		t.Errorf("what is still allowed gives %q, %v", text, err)
	}
	if _, err := g.dial("tcp", "9.9.9.9:81"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection ends with %v", err)
	}
}

// TestTheStacksOwnAddressesServeDNSAlone tries all ports that services have.
func TestTheStacksOwnAddressesServeDNSAlone(t *testing.T) {
	g := newGuest(t, "allow")
	for port := range 1024 {
		for _, a := range []netip.Addr{network.UserGateway, network.UserDNS} {
			if conn, err := g.dial("tcp", netip.AddrPortFrom(a, uint16(port)).String()); err == nil {
				conn.Close()
				if port != 53 {
					t.Errorf("%s:%d is open", a, port)
				}
			}
		}
	}
}
