package network

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"banger"
)

// TestLargeAnswersTakeLittleMemory asks for names that each lead, by many aliases, to
// as many addresses as an answer can hold.
func TestLargeAnswersTakeLittleMemory(t *testing.T) {
	g := NewGuard(banger.Policy{Default: banger.Allow}, nil)
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
			r.Answer = append(r.Answer, &dns.CNAME{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 9999}, Target: target})
			owner = target
		}
		for range 3500 {
			next++
			a := addrOf(8<<24 + uint32(next))
			r.Answer = append(r.Answer, &dns.A{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 9999}, A: a.AsSlice()})
		}
		return r.Pack()
	}
	who := &answerer{guard: g, lookup: lookup, log: slog.New(slog.DiscardHandler)}
	who.learned = func(_ context.Context, chain []string, addr netip.Addr, ttl time.Duration) error {
		for _, name := range chain {
			g.learn(addr, name, ttl, time.Now())
		}
		return nil
	}
	before := heap()
	for i := range 20 {
		query, err := new(dns.Msg).SetQuestion(fmt.Sprintf("name-%d.example.", i), dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		if answer := who.answer(t.Context(), query, 1, true); len(answer) < 10_000 {
			t.Fatalf("the answer has %d bytes", len(answer))
		}
	}
	if grown := int64(heap()) - int64(before); grown > 8<<20 {
		t.Errorf("20 answers are remembered in %s", banger.FormatSize(grown))
	}
	for i := range 2 * maxLearned { // one name each
		g.learn(addrOf(9<<24+uint32(i)), "one.example", time.Hour, time.Now())
	}
	if len(g.learned) > maxLearned || g.remembered != maxLearned {
		t.Errorf("%d addresses and %d names are remembered", len(g.learned), g.remembered)
	}
	if names := g.namesOf(addrOf(8<<24+1), time.Now()); len(names) != maxAliases+1 {
		t.Errorf("of the first address %d names are known", len(names))
	}
	g.forget(time.Now().Add(maxLearnTTL))
	if len(g.learned) > 0 || g.remembered != 0 {
		t.Errorf("%d addresses and %d names are remembered when all are old", len(g.learned), g.remembered)
	}
}

// TestADenialIsBounded refuses an address that has as many and as long names as can be.
func TestADenialIsBounded(t *testing.T) {
	var told []banger.Denial
	g := NewGuard(banger.Policy{Default: banger.Deny}, func(d banger.Denial) { told = append(told, d) })
	addr := addrOf(8<<24 + 1)
	for i := range maxNames {
		g.learn(addr, fmt.Sprintf("%d.%s", i, strings.Repeat("a.", 120)), time.Hour, time.Now())
	}
	if _, ok := g.admit(&flow{flowKey: flowKey{TCP, 1, netip.AddrPortFrom(addr, 80)}}); ok {
		t.Error("it is let through")
	}
	g.deny(banger.Denial{Protocol: "dns", Name: strings.Repeat("a.", 5000)})
	for _, d := range told {
		if len(d.Name) > maxDeniedName+len("…") || d.Time.IsZero() {
			t.Errorf("a denial has a name of %d bytes, and the time %v", len(d.Name), d.Time)
		}
	}
	if len(told) != 2 {
		t.Errorf("%d denials are told", len(told))
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
