package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/testing/processtest"

	"github.com/miekg/dns"

	"banger"
)

// hostLab is a lab whose bridge is owned by a Host.
type hostLab struct {
	*lab
	h      *Host
	dir    string
	denied chan string
}

func newHostLab(t *testing.T, networks ...Network) *hostLab {
	l := &hostLab{lab: newLab(t, networks...), dir: t.TempDir(), denied: make(chan string, 1000)}
	l.bridge.Close() // the host has its own
	l.h = l.newHost()
	t.Cleanup(l.h.Close)
	return l
}

// newHost returns a Host, as for a new daemon. Its resolver knows one record.
func (l *hostLab) newHost() *Host {
	lookup := func(_ context.Context, query []byte, _ bool) ([]byte, error) {
		var q dns.Msg
		if err := q.Unpack(query); err != nil {
			return nil, err
		}
		r := new(dns.Msg).SetReply(&q)
		rr, err := dns.NewRR(q.Question[0].Name + " 60 A 8.8.8.8")
		r.Answer = []dns.RR{rr}
		return must(r.Pack()), err
	}
	return NewHost(l.dir, lookup, func(id string, d banger.Decision) {
		l.denied <- fmt.Sprintf("%s %s %s %s:%d %s; %v", id, d.Protocol, d.Name, d.Address, d.Port, d.Rule, d.Suggested)
	}, slog.New(slog.DiscardHandler))
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func (l *hostLab) apply(h *Host) error {
	return l.host.do(func() error { return h.Apply(context.Background(), l.config) })
}

// ask asks the VM's resolver for an address and returns the answer's code and records.
func (l *hostLab) ask(vm *place, n Network, name string) (answer string) {
	l.Helper()
	vm.must(vm.do(func() error {
		q := new(dns.Msg).SetQuestion(name, dns.TypeA)
		if strings.HasSuffix(name, ".arpa.") {
			q.Question[0].Qtype = dns.TypePTR
		}
		r, err := dns.Exchange(q, netip.AddrPortFrom(n.Gateway(), 53).String())
		if err != nil {
			return err
		}
		answer = dns.RcodeToString[r.Rcode]
		for _, rr := range r.Answer {
			answer += " " + dns.Field(rr, 1)
		}
		return nil
	}))
	return answer
}

func TestVMsKnowEachOtherByName(t *testing.T) {
	l := newHostLab(t, defaultNet(), namedNet())
	l.config.Ports = []Port{l.port(1, 0, "deny"), l.port(2, 0, "deny"), l.port(3, 1, "deny"), l.port(4, 1, "allow")}
	for i, name := range []string{"one", "two", "db", "web"} {
		l.config.Ports[i].Name = name
	}
	l.host.must(l.apply(l.h))
	one, db, web := l.boot(l.config.Ports[0]), l.boot(l.config.Ports[2]), l.boot(l.config.Ports[3])
	for _, c := range []struct {
		vm         *place
		n          Network
		name, want string
	}{
		{db, namedNet(), "web.", "NOERROR 172.30.2.5"},
		{db, namedNet(), "WEB.vm.", "NOERROR 172.30.2.5"},
		{db, namedNet(), "web.team.vm.", "NOERROR 172.30.2.5"},
		{db, namedNet(), "web.default.vm.", "NXDOMAIN"},
		{db, namedNet(), "one.vm.", "NXDOMAIN"},
		{db, namedNet(), "5.2.30.172.in-addr.arpa.", "NOERROR web.team.vm."},
		{db, namedNet(), "name.example.", "REFUSED"},
		{web, namedNet(), "name.example.", "NOERROR 8.8.8.8"},
		{one, defaultNet(), "one.vm.", "NOERROR 172.30.1.2"},
		{db, namedNet(), "x.web.team.vm.", "NXDOMAIN"},
		{db, namedNet(), "team.vm.", "NOERROR"},
		{db, namedNet(), "ns.banger.vm.", "NXDOMAIN"},
		{db, namedNet(), "2.1.30.172.in-addr.arpa.", "REFUSED"}, // its policy lets it ask nobody else
		{one, defaultNet(), "two.vm.", "NXDOMAIN"},
		{one, defaultNet(), "web.team.vm.", "NXDOMAIN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := l.ask(c.vm, c.n, c.name); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestADenialOfABridgeSaysWhatWhereAndWhy(t *testing.T) {
	processtest.Long(t)
	l := newHostLab(t, defaultNet(), namedNet())
	l.config.Ports = []Port{l.port(1, 0, "deny 8.8.8.8 tcp:25\nallow 172.30.2.0/24\ndefault allow"), l.port(2, 1, "allow")}
	l.host.must(l.apply(l.h))
	vm := l.boot(l.config.Ports[0])
	for len(l.denied) > 0 { // of what boot tries
		<-l.denied
	}
	l.ask(vm, defaultNet(), "other.example.")
	gateway := defaultNet().Gateway().String()
	const special = "built in: private, link-local and metadata addresses need a rule that names them"
	for _, c := range []struct{ network, to, want string }{
		{"tcp", "8.8.8.8:25", "tcp other.example 8.8.8.8:25 deny 8.8.8.8 tcp:25; allow other.example tcp:25"},
		{"udp", "10.77.0.1:99", "udp  10.77.0.1:99 " + special + "; allow 10.77.0.1 udp:99"},
		{"tcp", "172.30.2.3:80", "tcp  172.30.2.3:80 " + ruleBridge + "; <nil>"}, // no rule can open it
		{"tcp", gateway + ":81", "tcp  " + gateway + ":81 " + special + "; allow host tcp:81"},
	} {
		t.Run(c.to, func(t *testing.T) {
			if vm.reaches(c.network, c.to) {
				t.Fatal("it is reached")
			}
			select {
			case got := <-l.denied:
				if want := l.config.Ports[0].ID + " " + c.want; got != want {
					t.Errorf("%q, want %q", got, want)
				}
			case <-time.After(10 * time.Second):
				t.Error("nothing is told")
			}
			for len(l.denied) > 0 { // what the kernel sent again
				<-l.denied
			}
		})
	}
}

// TestOneOwnerAtATime: a second daemon of the host is refused, until the first is
// gone, of whichever it then knows what to remove.
func TestOneOwnerAtATime(t *testing.T) {
	l := newHostLab(t, defaultNet())
	l.config.Ports = []Port{l.port(1, 0, "allow")}
	l.host.must(l.apply(l.h))
	second := l.newHost()
	defer second.Close()
	if err := l.apply(second); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("a second owner gets %v", err)
	}
	l.h.Close() // as when the daemon is killed, all stays
	if _, err := l.host.nl.LinkByName(l.config.Ports[0].Tap()); err != nil {
		t.Errorf("the tap went with its owner: %v", err)
	}
	l.config = Config{}
	l.host.must(l.apply(second))
	if links, err := l.host.nl.LinkList(); err != nil || len(links) != 2 {
		t.Errorf("%d links are left, not lo and the uplink (%v)", len(links), err)
	}
	if _, err := os.Stat(filepath.Join(l.dir, inUseFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is in use still: %v", err)
	}
}
