package netstack_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"banger/internal/testing/networktest"

	"github.com/miekg/dns"

	"banger/internal/network"
)

// TestNamesAreEnforcedThroughOurOwnAnswers tells what a guest learns of a name and
// what it may then reach.
func TestNamesAreEnforcedThroughOurOwnAnswers(t *testing.T) {
	networktest.NewInternet(t)
	const policy = "deny secret.example\nallow good.example\nallow *.wild.example tcp:80\nallow 10.1.2.3\ndefault deny"
	for _, c := range []struct {
		name    string
		records map[string][]string
		ask     string
		rcode   int
		answer  []string
		reach   map[string]bool
	}{
		{"a name that is allowed", map[string][]string{"good.example": {"60 A 8.8.8.8", "60 A 8.8.4.4"}}, "good.example",
			dns.RcodeSuccess, []string{"8.8.8.8", "8.8.4.4"}, map[string]bool{"8.8.8.8": true, "8.8.4.4": true,
				"9.9.9.9": false}},
		{"however it is written", map[string][]string{"good.example": {"60 A 8.8.8.8"}}, "GOOD.Example.",
			dns.RcodeSuccess, []string{"8.8.8.8"}, map[string]bool{"8.8.8.8": true}},
		{"one that is not", map[string][]string{"other.example": {"60 A 8.8.8.8"}}, "other.example",
			dns.RcodeRefused, nil, map[string]bool{"8.8.8.8": false}},
		{"one that is denied", map[string][]string{"secret.example": {"60 A 8.8.8.8"}}, "secret.example",
			dns.RcodeRefused, nil, map[string]bool{"8.8.8.8": false}},
		{"all below a domain", map[string][]string{"a.b.wild.example": {"60 A 8.8.8.8"}}, "a.b.wild.example",
			dns.RcodeSuccess, []string{"8.8.8.8"}, map[string]bool{"8.8.8.8": true}},
		{"but not the domain itself", map[string][]string{"wild.example": {"60 A 8.8.8.8"}}, "wild.example",
			dns.RcodeRefused, nil, map[string]bool{"8.8.8.8": false}},
		{"nor one that ends alike", map[string][]string{"evilwild.example": {"60 A 8.8.8.8"}}, "evilwild.example",
			dns.RcodeRefused, nil, map[string]bool{"8.8.8.8": false}},
		{"nor one label with a dot in it", map[string][]string{`evil\.wild.example`: {"60 A 8.8.8.8"}}, `evil\.wild.example`,
			dns.RcodeRefused, nil, map[string]bool{"8.8.8.8": false}},
		{"an alias of an allowed name", map[string][]string{"good.example": {"60 CNAME cdn.example."},
			"cdn.example": {"60 A 8.8.8.8"}}, "good.example",
			dns.RcodeSuccess, []string{"8.8.8.8"}, map[string]bool{"8.8.8.8": true}},
		{"an alias that leads to a denied name", map[string][]string{"good.example": {"60 CNAME secret.example."},
			"secret.example": {"60 A 8.8.8.8"}}, "good.example",
			dns.RcodeRefused, nil, map[string]bool{"8.8.8.8": false}},
		{"aliases in a circle", map[string][]string{"good.example": {"60 CNAME other.example."},
			"other.example": {"60 CNAME good.example."}}, "good.example",
			dns.RcodeSuccess, nil, nil},
		{"an address of somebody else in the answer", map[string][]string{"good.example": {"60 A 8.8.8.8",
			"@other.example. 60 A 9.9.9.9"}}, "good.example",
			dns.RcodeSuccess, []string{"8.8.8.8", "9.9.9.9"}, map[string]bool{"8.8.8.8": true, "9.9.9.9": false}},
		{"rebinding to loopback", map[string][]string{"good.example": {"60 A 127.0.0.1"}}, "good.example", dns.RcodeSuccess,
			nil, nil},
		{"rebinding to metadata", map[string][]string{"good.example": {"60 A 169.254.169.254", "60 A 8.8.8.8"}},
			"good.example",
			dns.RcodeSuccess, []string{"8.8.8.8"}, map[string]bool{"169.254.169.254": false, "8.8.8.8": true}},
		{"rebinding to the host", map[string][]string{"good.example": {"60 A " + networktest.HostPublic}}, "good.example",
			dns.RcodeSuccess, nil, map[string]bool{networktest.HostPublic: false}},
		{"a private address that a rule names", map[string][]string{"good.example": {"60 A 10.1.2.3"}}, "good.example",
			dns.RcodeSuccess, []string{"10.1.2.3"}, map[string]bool{"10.1.2.3": true}},
		{"a name that nobody has", nil, "good.example", dns.RcodeNameError, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuest(t, policy)
			for owner, records := range c.records {
				g.zone.set(owner, records...)
			}
			for to := range c.reach {
				if to != "10.1.2.3" && tryTCP(t, g, to, false) != networktest.Nobody {
					t.Errorf("%s is reachable before anybody asked", to)
				}
			}
			answer, rcode := g.lookup(t, c.ask)
			if rcode != c.rcode || !slices.Equal(answer, c.answer) {
				t.Errorf("it is answered with %s %v", dns.RcodeToString[rcode], answer)
			}
			for to, want := range c.reach {
				if got := tryTCP(t, g, to, want); (got != networktest.Nobody) != want {
					t.Errorf("%s is answered by %q", to, got)
				}
			}
		})
	}
}

// TestThereIsNoIPv6AndNoBlackHole: a name with both kinds of address has one.
func TestThereIsNoIPv6AndNoBlackHole(t *testing.T) {
	g := newGuest(t, "allow")
	g.zone.set("both.example", "60 A 8.8.8.8", "60 AAAA 2001:db8::1")
	if r := g.ask(t, "udp", "both.example", dns.TypeAAAA); r.Rcode != dns.RcodeSuccess || len(r.Answer) != 0 {
		t.Errorf("a question for AAAA is answered with %v", r)
	}
	g.zone.set("alias.example", "60 CNAME both.example.")
	for name, want := range map[string]int{"nowhere.example": dns.RcodeNameError, "alias.example": dns.RcodeSuccess} {
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
			r := g.ask(t, "udp", name, kind)
			if r.Rcode != want || len(r.Question) != 1 || r.Question[0].Qtype != kind || kind == dns.TypeAAAA &&
				len(r.Answer) > 0 {
				t.Errorf("a question for %s %s is answered with %v", name, dns.TypeToString[kind], r)
			}
		}
	}
	for _, transport := range []string{"udp", "tcp"} {
		if r := g.ask(t, transport, "both.example", dns.TypeA); len(r.Answer) != 1 {
			t.Errorf("over %s one for A is answered with %v", transport, r.Answer)
		}
	}
}

// TestARefusalSaysWhy reads the extended error of RFC 8914.
func TestARefusalSaysWhy(t *testing.T) {
	g := newGuest(t, "deny")
	r := g.ask(t, "udp", "any.example", dns.TypeA)
	if opt := r.IsEdns0(); opt == nil || len(opt.Option) != 1 || opt.Option[0].String() != "15 (Blocked): (default deny)" {
		t.Errorf("it says %v", r)
	}
}

// TestTheHostsResolverIsFollowed rewrites resolv.conf as a VPN does.
func TestTheHostsResolverIsFollowed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	r := network.NewResolver(file)
	for _, server := range []string{"127.0.1.1", "127.0.1.2", "127.0.1.3"} {
		z := &zone{}
		z.set("where.example", "60 TXT "+server)
		serveZone(t, z, server)
	}
	for _, c := range []struct{ text, want string }{
		{"nameserver 127.0.1.1\n", "127.0.1.1"},
		{"# up\nsearch vpn.example\nnameserver 127.0.1.2\nnameserver 127.0.1.1\n", "127.0.1.2"},
		{"nameserver 127.0.1.9\nnameserver 127.0.1.3\n", "127.0.1.3"}, // nobody is at the first
	} {
		networktest.Check(t, os.WriteFile(file+".new", []byte(c.text), 0o644))
		networktest.Check(t, os.Rename(file+".new", file))
		q, err := new(dns.Msg).SetQuestion("where.example.", dns.TypeTXT).Pack()
		networktest.Check(t, err)
		for _, stream := range []bool{false, true} {
			b, err := r.Exchange(context.Background(), q, stream)
			networktest.Check(t, err)
			var m dns.Msg
			networktest.Check(t, m.Unpack(b))
			if txt, ok := m.Answer[0].(*dns.TXT); !ok || txt.Txt[0] != c.want {
				t.Errorf("with %q it asks %v", c.text, m.Answer)
			}
		}
	}
}

// serveZone answers from z on port 53 of a loopback address.
func serveZone(t *testing.T, z *zone, at string) {
	t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		b, err := q.Pack()
		if err == nil {
			b, err = z.exchange(context.Background(), b, false)
		}
		if err == nil {
			w.Write(b)
		}
	})
	pc, err := net.ListenPacket("udp4", at+":53")
	networktest.Check(t, err)
	ln, err := net.Listen("tcp4", at+":53")
	networktest.Check(t, err)
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: ln, Handler: handler}} {
		started, ended := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() {
			s.ActivateAndServe()
			close(ended)
		}()
		<-started
		t.Cleanup(func() { s.Shutdown(); <-ended })
	}
}
