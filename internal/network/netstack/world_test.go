package netstack_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/network/netstack"
	"banger/internal/testing/networktest"
	"banger/internal/testing/processtest"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"

	"banger"
	"banger/internal/network"
	"banger/internal/notation"
)

// TestMain runs the tests in a namespace of their own.
func TestMain(m *testing.M) { networktest.Main(m, os.Getenv(tapRole) != "") }

// patience is the time limit of every wait.
var patience = processtest.Patience

// guest is a namespace whose one NIC is a tap with a Stack at its other end: a real kernel sends
// real packets.
type guest struct {
	*networktest.Namespace
	stack *netstack.Stack
	zone  *zone

	mu        sync.Mutex
	decisions []banger.Decision
	told      chan struct{} // gets a token per decision
}

const guestID = "0123456789ab"

func newGuest(t *testing.T, policy string) *guest {
	t.Helper()
	p, err := notation.ParsePolicy(policy)
	networktest.Check(t, err)
	g := &guest{Namespace: networktest.NewNamespace(t), zone: &zone{}, told: make(chan struct{}, 1000)}
	var tap *os.File
	g.In(t, func() (err error) {
		tap, err = networktest.OpenTap("eth0")
		return err
	})
	g.stack, err = netstack.New(netstack.NewTap(tap), netstack.Config{MAC: network.MAC(guestID), Policy: p,
		Decided: g.decided, Lookup: g.zone.exchange, Log: slog.New(slog.DiscardHandler)})
	networktest.Check(t, err)
	t.Cleanup(func() { g.stack.Close() })
	g.In(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		mac, _ := net.ParseMAC(network.MAC(guestID))
		return errors.Join(netlink.LinkSetHardwareAddr(l, mac), netlink.LinkSetMTU(l, network.UserMTU),
			os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0),
			networktest.SetUp("eth0", network.UserGuest.String()+"/24", network.UserGateway.String()))
	})
	return g
}

func (g *guest) decided(d banger.Decision) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.decisions = append(g.decisions, d)
	select {
	case g.told <- struct{}{}:
	default:
	}
}

// await returns the first decision that fits.
func (g *guest) await(t *testing.T, fits func(banger.Decision) bool) banger.Decision {
	t.Helper()
	for timeout := time.After(patience); ; {
		g.mu.Lock()
		at := slices.IndexFunc(g.decisions, fits)
		g.mu.Unlock()
		if at >= 0 {
			return g.decisions[at]
		}
		select {
		case <-g.told:
		case <-timeout:
			t.Fatalf("no such decision among %+v", g.decisions)
		}
	}
}

// dial connects from the guest.
func (g *guest) dial(proto, to string) (conn net.Conn, err error) {
	err = g.Try(func() error {
		d := net.Dialer{Timeout: patience}
		conn, err = d.Dial(proto+"4", to)
		return err
	})
	return conn, err
}

// listen opens a socket in the guest.
func (g *guest) listen(t *testing.T, at string) net.Listener {
	t.Helper()
	var ln net.Listener
	g.In(t, func() (err error) {
		ln, err = net.Listen("tcp4", at)
		return err
	})
	t.Cleanup(func() { ln.Close() })
	return ln
}

// zone is the DNS of the tests.
type zone struct {
	mu      sync.Mutex
	records map[string][]string
}

// set gives a name records in the format of zone files, without their owner:
// "60 A 8.8.8.8"; "@other. 60 A 8.8.8.8" is one of another owner.
func (z *zone) set(owner string, records ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.records == nil {
		z.records = map[string][]string{}
	}
	z.records[owner+"."] = records
}

// exchange answers with all records of a name and of its aliases.
func (z *zone) exchange(_ context.Context, query []byte, _ bool) ([]byte, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	var q dns.Msg
	if err := q.Unpack(query); err != nil {
		return nil, err
	}
	r := new(dns.Msg).SetReply(&q)
	name, seen := dns.CanonicalName(q.Question[0].Name), map[string]bool{}
	if z.records[name] == nil {
		r.Rcode = dns.RcodeNameError
	}
	for name != "" && !seen[name] {
		seen[name] = true
		next := ""
		for _, text := range z.records[name] {
			foreign, ok := strings.CutPrefix(text, "@")
			if !ok {
				foreign = name + " " + text
			}
			rr, err := dns.NewRR(foreign)
			if err != nil {
				return nil, err
			}
			if c, ok := rr.(*dns.CNAME); ok {
				next = c.Target
			}
			r.Answer = append(r.Answer, rr)
		}
		name = next
	}
	return r.Pack()
}

// lookup asks the guest's resolver for addresses.
func (g *guest) lookup(t *testing.T, name string) (addresses []string, rcode int) {
	t.Helper()
	r := g.ask(t, "udp", name, dns.TypeA)
	for _, rr := range r.Answer {
		if a, ok := rr.(*dns.A); ok {
			addresses = append(addresses, a.A.String())
		}
	}
	return addresses, r.Rcode
}

func (g *guest) ask(t *testing.T, transport, name string, qtype uint16) *dns.Msg {
	t.Helper()
	conn, err := g.dial(transport, network.UserDNS.String()+":53")
	networktest.Check(t, err)
	defer conn.Close()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	q.SetEdns0(1232, false)
	c := dns.Client{Net: transport, Timeout: patience}
	r, _, err := c.ExchangeWithConn(q, &dns.Conn{Conn: conn, UDPSize: 4096})
	networktest.Check(t, err)
	return r
}
