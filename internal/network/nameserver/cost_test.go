package nameserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"banger/internal/network"
	"banger/internal/network/policy"

	"github.com/miekg/dns"

	"banger"
	"banger/internal/testing/processtest"
)

// The longest name, each byte of which is shown by four, and a pointer to it.
var (
	longName = bytes.Repeat(append([]byte{62}, bytes.Repeat([]byte{0xff}, 62)...), 4)
	pointer  = []byte{0xc0, 12}
)

// bomb returns an answer to query with a question about the longest name, and as many records of a
// type as fit into a message.
func bomb(query []byte, kind uint16, data []byte) []byte {
	m := append([]byte(nil), query...)
	m[2] |= 0x80
	n := 0
	for len(m)+12+len(data) < network.MaxMessage {
		m = append(m, pointer...)
		m = binary.BigEndian.AppendUint16(m, kind)
		m = append(m, 0, 1, 0, 0, 0, 60)
		m = binary.BigEndian.AppendUint16(m, uint16(len(data)))
		m = append(m, data...)
		n++
	}
	binary.BigEndian.PutUint16(m[6:], uint16(n))
	return m
}

func longQuestion(id uint16, kind uint16) []byte {
	m := binary.BigEndian.AppendUint16(nil, id)
	m = append(m, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	m = append(append(m, longName...), 0)
	return append(binary.BigEndian.AppendUint16(m, kind), 0, 1)
}

// TestAnswersTakeLittleMemoryAtOnce has twenty questions of a guest answered at once by answers that
// are as large as they can be, and that become larger when they are unpacked.
func TestAnswersTakeLittleMemoryAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		kind uint16
		data []byte
	}{
		"addresses":      {dns.TypeA, []byte{8, 8, 8, 8}},
		"names":          {dns.TypeNS, pointer},
		"pairs of names": {dns.TypeSOA, append(append(append([]byte(nil), pointer...), pointer...), make([]byte, 20)...)},
		"lists of names": {dns.TypeHIP, append(append([]byte{1, 2, 0, 1}, 'x', 'y'),
			bytes.Repeat(pointer, 32_000)[:60_000]...)},
		"short lists": {dns.TypeHIP, append(append([]byte{1, 2, 0, 1}, 'x', 'y'), bytes.Repeat(pointer, 30)...)},
		"options":     {dns.TypeOPT, bytes.Repeat([]byte{0xff, 0xff, 0, 0}, 15_000)},
		"prefixes":    {dns.TypeAPL, bytes.Repeat([]byte{0, 1, 0, 0}, 15_000)},
		"types":       {dns.TypeNSEC, append([]byte{0}, allTypes()...)},
		"texts":       {dns.TypeTXT, bytes.Repeat([]byte{0}, 60_000)},
		"services":    {dns.TypeHTTPS, append([]byte{0, 1, 0}, parameters()...)},
	} {
		lookup := func(_ context.Context, query []byte, _ bool) ([]byte, error) { return bomb(query, c.kind, c.data), nil }
		const bound = 12 << 20
		grown := growth(t, 20, c.kind, lookup)
		for try := 1; try < 3 && grown > bound; try++ { // the first answers also bring in code and a busy host's garbage
			grown = growth(t, 20, c.kind, lookup)
		}
		t.Logf("%s: 20 answers take %s", name, banger.FormatSize(grown))
		if grown > bound {
			t.Errorf("%s: 20 answers take %s", name, banger.FormatSize(grown))
		}
	}
}

// allTypes returns a bitmap of all types (RFC 4034, 4.1.2).
func allTypes() (b []byte) {
	for window := range 256 {
		b = append(append(b, byte(window), 32), bytes.Repeat([]byte{0xff}, 32)...)
	}
	return b
}

// parameters returns many parameters without values (RFC 9460, 2.2).
func parameters() (b []byte) {
	for key := range 15_000 {
		b = append(binary.BigEndian.AppendUint16(b, uint16(1000+key)), 0, 0)
	}
	return b
}

// newGuest returns a guest whose policy allows every question and answer.
func newGuest(lookup network.Exchange) *Guest {
	return &Guest{
		Guard:  policy.NewGuard(banger.Policy{Default: banger.Allow}, nil),
		Lookup: lookup,
		Log:    slog.New(slog.DiscardHandler),
		Learn:  func(context.Context, []string, netip.Addr, time.Duration) error { return nil },
	}
}

// growth returns by how much the process grows while n questions are answered at once.
func growth(t *testing.T, n int, kind uint16, lookup network.Exchange) int64 {
	t.Helper()
	guest := newGuest(lookup)
	return processtest.Growth(t, func() {
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { guest.answer(t.Context(), longQuestion(uint16(i), kind), 1, true) })
		}
		wg.Wait()
	})
}

// TestALargeAnswerComes checks that an honest answer of the largest size is not refused, and fits
// into a message again.
func TestALargeAnswerComes(t *testing.T) {
	var answer []byte
	lookup := func(_ context.Context, query []byte, _ bool) ([]byte, error) {
		m := bomb(append([]byte(nil), query...), dns.TypeA, []byte{8, 8, 8, 8})
		answer = m[:len(m)/16*16]
		return m, nil
	}
	guest := newGuest(lookup)
	query := packed(t, new(dns.Msg).SetQuestion("a-name-as-others-are.example.", dns.TypeA))
	if got := guest.answer(t.Context(), query, 1, true); len(got) < len(answer) || len(got) >= network.MaxMessage ||
		got[3]&15 != 0 {
		t.Errorf("an answer of %d bytes becomes one of %d", len(answer), len(got))
	}
}

// TestOnlyQuestionsAreUnpacked checks that what is no question of a resolver costs a guest's host
// nothing, and that each kind of honest question is one.
func TestOnlyQuestionsAreUnpacked(t *testing.T) {
	plain := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	options := plain.Copy()
	options.SetEdns0(4096, true)
	update := new(dns.Msg).SetUpdate("example.")
	update.Insert([]dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "a.example.", Rrtype: dns.TypeA, Class: dns.ClassINET},
		A: []byte{8, 8, 8, 8}}})
	for name, c := range map[string]struct {
		m    []byte
		want bool
	}{
		"plain":            {packed(t, plain), true},
		"with options":     {packed(t, options), true},
		"the longest name": {longQuestion(1, dns.TypeA), true},
		"records":          {bomb(longQuestion(1, dns.TypeA), dns.TypeHIP, pointer)[:4000], false},
		"more records":     {append(more(longQuestion(1, dns.TypeA)), pointer[0], pointer[1], 0, 55), false},
		"too long":         {append(longQuestion(1, dns.TypeA), make([]byte, maxQuery)...), false},
		"an update":        {packed(t, update), false},
		"no question":      {make([]byte, 12), false},
		"a header":         {make([]byte, 11), false},
		"a loop":           {[]byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1}, false},
	} {
		if got := isQuestion(c.m); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	if b := notImplemented(packed(t, update)); len(b) != 12 || b[3]&15 != dns.RcodeNotImplemented ||
		b[2] != 0x80|dns.OpcodeUpdate<<3 {
		t.Errorf("an update is answered with % x", b)
	}
}

// more adds one additional record to a question.
func more(m []byte) []byte {
	m[11] = 1
	return m
}

func packed(t *testing.T, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzMessageCost checks that what package dns unpacks is never called broken, and that the name of a
// question is not longer than it was said to be.
func FuzzMessageCost(f *testing.F) {
	f.Add(bomb(longQuestion(1, dns.TypeSOA), dns.TypeSOA, append(append([]byte(nil), pointer...), pointer...))[:1000])
	f.Add(longQuestion(1, dns.TypeA))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m dns.Msg
		cost, err := messageCost(b)
		if err == errLarge || len(b) > network.MaxMessage {
			return
		}
		if uerr := m.Unpack(b); uerr != nil || len(m.Question) != 1 || len(m.Answer)+len(m.Ns)+len(m.Extra) == 0 {
			return // what has no record says nothing
		}
		if err != nil {
			t.Fatalf("%v: %v", err, &m)
		}
		text := 0
		for _, rr := range append(append(m.Answer, m.Ns...), m.Extra...) {
			text += len(rr.Header().Name)
		}
		if cost < text {
			t.Errorf("it takes %d, and the names of its records alone %d: %v", cost, text, &m)
		}
	})
}
