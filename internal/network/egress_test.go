package network_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"banger"
	"banger/internal/network"
)

// Who answers the guest at an address.
const (
	nobody   = ""
	world    = "the internet"
	theHost  = "the host"
	guestOwn = "the guest itself"
)

// destinations are what a guest may try, and who answers under each policy.
var destinations = []struct {
	address string
	allow   string // policy allow
	named   string // policy deny, with rules that name some
}{
	// The Internet.
	{"1.1.1.1", world, nobody}, {"8.8.8.8", world, world}, {"8.8.4.4", world, nobody}, {"9.9.9.9", world, nobody},
	{"4.2.2.1", world, nobody}, {"11.0.0.1", world, nobody}, {"99.255.255.255", world, nobody}, {"100.63.255.255", world, nobody},
	{"100.128.0.1", world, nobody}, {"128.0.0.1", world, nobody}, {"151.101.2.132", world, world}, {"169.253.255.255", world, nobody},
	{"169.255.0.1", world, nobody}, {"172.15.255.255", world, nobody}, {"172.32.0.1", world, nobody}, {"191.255.255.255", world, nobody},
	{"192.167.255.255", world, nobody}, {"192.169.0.1", world, nobody}, {"198.17.255.255", world, nobody}, {"198.20.0.1", world, nobody},
	{"223.255.255.254", world, nobody}, {"5.5.5.1", world, nobody},
	// The host.
	{hostPublic, nobody, nobody}, {hostPrivate, nobody, theHost}, {hostSecond, nobody, nobody},
	{"5.5.5.255", nobody, nobody}, {"192.168.77.255", nobody, nobody}, // everybody beside the host
	{"127.0.0.1", guestOwn, guestOwn}, {"127.0.0.53", guestOwn, guestOwn}, {"127.255.255.254", guestOwn, guestOwn},
	{"10.0.2.2", nobody, nobody}, {"10.0.2.3", nobody, nobody},
	// Local networks.
	{"10.0.0.1", nobody, nobody}, {"10.0.2.4", nobody, nobody}, {"10.1.2.3", nobody, world}, {"10.1.255.255", nobody, world}, {"10.2.0.1", nobody, nobody},
	{"10.255.255.254", nobody, nobody}, {"172.16.0.1", nobody, nobody}, {"172.31.255.254", nobody, nobody}, {"192.168.0.1", nobody, nobody},
	{"192.168.77.9", nobody, nobody}, {"192.168.255.254", nobody, nobody}, {"100.64.0.1", nobody, nobody}, {"100.127.255.254", nobody, nobody},
	// Link-local, metadata, and other special addresses.
	{"169.254.169.254", nobody, nobody}, {"169.254.170.2", nobody, nobody}, {"169.254.0.1", nobody, nobody}, {"168.63.129.16", nobody, nobody},
	{"100.100.100.200", nobody, nobody}, {"192.0.0.192", nobody, nobody}, {"192.0.2.1", nobody, nobody}, {"198.18.0.1", nobody, nobody},
	{"198.51.100.1", nobody, nobody}, {"203.0.113.1", nobody, nobody}, {"192.88.99.1", nobody, nobody},
	{"0.1.2.3", nobody, nobody}, {"224.0.0.1", nobody, nobody}, {"239.255.255.250", nobody, nobody}, {"240.0.0.1", nobody, nobody}, {"255.255.255.255", nobody, nobody},
}

// egressPolicies say of each destination who answers.
var egressPolicies = map[string]struct {
	policy string
	want   func(at int) string
}{
	"allow": {"allow", func(at int) string { return destinations[at].allow }},
	"deny": {"deny", func(at int) string {
		if destinations[at].allow == guestOwn {
			return guestOwn
		}
		return nobody
	}},
	"deny but": {"allow 8.8.8.8\nallow 151.101.0.0/16\nallow 10.1.0.0/16\nallow " + hostPrivate, func(at int) string { return destinations[at].named }},
	// Rules that hold addresses of the host do not name them.
	"networks": {"deny 10.0.2.0/24\ndeny 192.168.77.9\nallow private\nallow 5.5.5.0/24\nallow 192.168.77.0/24", func(at int) string {
		d := destinations[at]
		addr := netip.MustParseAddr(d.address)
		closed := []string{hostPublic, hostPrivate, hostSecond, "5.5.5.255", "192.168.77.255", "192.168.77.9", "10.0.2.2", "10.0.2.3", "10.0.2.4"}
		switch {
		case d.allow == guestOwn:
			return guestOwn
		case slices.Contains(closed, d.address):
			return nobody
		case addr.IsPrivate(), slices.Contains([]string{"5.5.5.1", "100.64.0.1", "100.127.255.254"}, d.address): // not 100.100.100.200
			return world
		}
		return nobody
	}},
	// The same, said the other way round.
	"allow but": {"deny 8.8.8.0/24\ndeny private\nallow any", func(at int) string {
		if destinations[at].address == "8.8.8.8" {
			return nobody
		}
		return destinations[at].allow
	}},
}

func TestEgressMatrix(t *testing.T) {
	for name, c := range egressPolicies {
		t.Run(name, func(t *testing.T) {
			net := newInternet(t)
			g := newGuest(t, c.policy)
			g.in(t, func() error { return (&internet{seen: map[string]bool{}}).serve(t, guestOwn) })
			for i, d := range destinations {
				want := c.want(i)
				for proto, try := range map[string]func(*testing.T, *guest, string, bool) string{"tcp": tryTCP, "udp": tryUDP, "icmp": tryPing} {
					got := try(t, g, d.address, want != nobody)
					if proto != "tcp" && got != nobody { // which does not say who it is
						got = want
						if want == nobody {
							got = "somebody"
						}
					}
					if got != want && !(want == nobody && proto == "icmp" && (d.address == "10.0.2.2" || d.address == "10.0.2.3")) { // which are ours
						t.Errorf("%s to %s is answered by %q, not %q", proto, d.address, got, want)
					}
				}
			}
			for i, d := range destinations {
				for _, proto := range []string{"tcp", "udp"} {
					if got, want := net.was(proto+" "+d.address), c.want(i); got != (want == world || want == theHost) {
						t.Errorf("%s to %s arrived: %v", proto, d.address, got)
					}
				}
			}
		})
	}
}

// tryTCP returns what the server calls itself. Who is refused is told at once.
func tryTCP(t *testing.T, g *guest, to string, _ bool) string {
	conn, err := g.dial("tcp", to+":80")
	if err != nil {
		if errors.Is(err, syscall.ETIMEDOUT) || strings.Contains(err.Error(), "timeout") {
			t.Errorf("tcp to %s is a black hole", to)
		}
		return nobody
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(patience))
	name, err := io.ReadAll(conn)
	if err != nil {
		t.Errorf("tcp to %s: %v", to, err)
	}
	return strings.TrimSpace(string(name))
}

// tryUDP sends a datagram and waits for its echo: for long when one is due, else
// until the stack has done all that came before a later question.
func tryUDP(t *testing.T, g *guest, to string, due bool) string {
	conn, err := g.dial("udp", to+":80")
	if err != nil {
		return nobody // the guest's own kernel will not
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello " + to)); err != nil {
		return nobody
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
		return nobody
	}
	return "somebody"
}

func tryPing(t *testing.T, g *guest, to string, due bool) string {
	var conn *icmp.PacketConn
	g.in(t, func() (err error) {
		conn, err = icmp.ListenPacket("udp4", "0.0.0.0")
		return err
	})
	defer conn.Close()
	message, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 1, Seq: 7, Data: []byte("ping " + to)}}).Marshal(nil)
	check(t, err)
	if _, err := conn.WriteTo(message, &net.UDPAddr{IP: net.ParseIP(to)}); err != nil {
		return nobody
	}
	return awaitEcho(t, g, pinged{conn}, due, func(b []byte) bool {
		m, err := icmp.ParseMessage(1, b)
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply {
			return false
		}
		echo, ok := m.Body.(*icmp.Echo)
		return ok && echo.Seq == 7 && string(echo.Data) == "ping "+to
	})
}

// pinged reads like a connection.
type pinged struct{ *icmp.PacketConn }

func (p pinged) Read(b []byte) (int, error) {
	n, _, err := p.ReadFrom(b)
	return n, err
}
func (p pinged) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }
func (p pinged) RemoteAddr() net.Addr      { return nil }

// TestRulesAreReadInOrder tries one policy with all kinds of rules.
func TestRulesAreReadInOrder(t *testing.T) {
	newInternet(t)
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
		{"tcp", "8.8.8.8", false}, {"udp", "8.8.8.8", true}, {"tcp", "8.8.8.9", true}, {"tcp", "9.9.9.9", false}, {"udp", "9.9.9.9", true},
		{"tcp", "7.7.7.7", true}, {"udp", "7.7.7.7", false}, {"tcp", "7.7.7.8", false}, {"tcp", "10.0.2.2", true}, {"tcp", "10.0.2.3", false}, {"udp", "10.0.2.2", false},
	} {
		t.Run(c.proto+" "+c.to, func(t *testing.T) {
			try := map[string]func(*testing.T, *guest, string, bool) string{"tcp": tryTCP, "udp": tryUDP}[c.proto]
			if got := try(t, g, c.to, c.want); (got != nobody) != c.want {
				t.Errorf("it is answered by %q", got)
			}
		})
	}
}

func TestADenialSaysWhatWhereAndWhy(t *testing.T) {
	newInternet(t)
	g := newGuest(t, "allow good.example\ndefault deny")
	g.zone.set("good.example", "60 A 8.8.8.8")
	g.lookup(t, "good.example")
	g.lookup(t, "bad.example")
	for _, to := range []string{"8.8.4.4:80", "169.254.169.254:80", "10.0.2.2:22"} {
		if conn, err := g.dial("tcp", to); err == nil {
			conn.Close()
		}
	}
	for _, want := range []banger.Denial{
		{Protocol: "dns", Name: "bad.example", Rule: "default deny"},
		{Protocol: "tcp", Address: "8.8.4.4", Port: 80, Rule: "default deny"},
		{Protocol: "tcp", Address: "169.254.169.254", Port: 80, Rule: "built in: private, link-local and metadata addresses need a rule that names them"},
		{Protocol: "tcp", Address: "10.0.2.2", Port: 22, Rule: "built in: the host's own addresses need a rule that names them"},
	} {
		t.Run(fmt.Sprint(want.Protocol, want.Name, want.Address), func(t *testing.T) {
			got := g.awaitDenial(t, func(d banger.Denial) bool {
				return d.Protocol == want.Protocol && d.Name == want.Name && d.Address == want.Address && d.Port == want.Port && d.Rule == want.Rule
			})
			if time.Since(got.Time) > patience {
				t.Errorf("it is of %v", got.Time)
			}
		})
	}
}

// TestAChangedPolicyCutsWhatItForbids holds one connection that stays allowed and
// one that does not.
func TestAChangedPolicyCutsWhatItForbids(t *testing.T) {
	i := newInternet(t)
	g := newGuest(t, "allow")
	var ln net.Listener
	i.in(t, func() (err error) {
		ln, err = net.Listen("tcp4", "0.0.0.0:81")
		return err
	})
	t.Cleanup(func() { ln.Close() })
	open := func(to string) (near, far net.Conn) {
		near, err := g.dial("tcp", to)
		check(t, err)
		far, err = ln.Accept()
		check(t, err)
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
