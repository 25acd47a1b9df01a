package nameserver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"banger/internal/ipaddr"
	"banger/internal/network"
	"banger/internal/network/policy"
	"banger/internal/testing/networktest"

	"banger"
)

func TestMain(m *testing.M) { networktest.Main(m, false) }

// brokenOnce is a listener whose first Accept fails.
type brokenOnce struct {
	net.Listener
	failed bool
}

func (f *brokenOnce) Accept() (net.Conn, error) {
	if !f.failed {
		f.failed = true
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return f.Listener.Accept()
}

// TestAnswersGoOnAfterAnErrorOfAccept checks that the resolver takes streams after one failed.
func TestAnswersGoOnAfterAnErrorOfAccept(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan netip.Addr, 1)
	New(ctx, &wg, func(a netip.Addr) *Guest { asked <- a; return nil }).Serve(pc, &brokenOnce{Listener: ln})
	conn, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	select {
	case <-asked:
	case <-time.After(10 * time.Second):
		t.Error("nobody accepts the stream")
	}
}

// TestLargeAnswersTakeLittleMemory asks for names that each lead, by many aliases, to
// as many addresses as an answer can hold.
func TestLargeAnswersTakeLittleMemory(t *testing.T) {
	g := policy.NewGuard(banger.Policy{Default: banger.Allow}, nil)
	next := 0
	lookup := func(_ context.Context, query []byte, _ bool) ([]byte, error) {
		var q dns.Msg
		if err := q.Unpack(query); err != nil {
			return nil, err
		}
		r := new(dns.Msg).SetReply(&q)
		r.Compress = true
		owner := q.Question[0].Name
		for i := range maxAliases {
			target := fmt.Sprintf("alias-%d-%s", i, q.Question[0].Name)
			r.Answer = append(r.Answer, &dns.CNAME{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeCNAME, Class: dns.ClassINET,
				Ttl: 9999}, Target: target})
			owner = target
		}
		for range 3500 {
			next++
			a := ipaddr.FromNumber(8<<24 + uint32(next))
			r.Answer = append(r.Answer, &dns.A{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeA, Class: dns.ClassINET,
				Ttl: 9999}, A: a.AsSlice()})
		}
		return r.Pack()
	}
	guest := newGuest(lookup)
	guest.Guard = g
	guest.Learn = func(_ context.Context, chain []string, addr netip.Addr, ttl time.Duration) error {
		for _, name := range chain {
			g.Learn(addr, name, ttl, time.Now())
		}
		return nil
	}
	before := heap()
	for i := range 20 {
		query, err := new(dns.Msg).SetQuestion(fmt.Sprintf("name-%d.example.", i), dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		if answer := guest.answer(t.Context(), query, 1, true); len(answer) < 10_000 {
			t.Fatalf("the answer has %d bytes", len(answer))
		}
	}
	if grown := int64(heap()) - int64(before); grown > 8<<20 {
		t.Errorf("20 answers are remembered in %s", banger.FormatSize(grown))
	}
	first := network.FlowKey{Protocol: network.TCP, Destination: netip.AddrPortFrom(ipaddr.FromNumber(8<<24+1), 80)}
	if _, names, _ := g.Admit(first); len(names) != maxAliases+1 {
		t.Errorf("of the first address %d names are known", len(names))
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
