package dns

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// book is a directory: VM and network to address.
type book map[[2]string]string

func (b book) Address(vm, network string) (netip.Addr, bool) {
	for k, a := range b {
		if k[0] == vm && (network == "" || k[1] == network) {
			return netip.MustParseAddr(a), true
		}
	}
	return netip.Addr{}, false
}

func (b book) HasNetwork(network string) bool {
	for k := range b {
		if k[1] == network {
			return true
		}
	}
	return false
}

func (b book) Name(addr netip.Addr) (vm, network string, ok bool) {
	for k, a := range b {
		if a == addr.String() {
			return k[0], k[1], true
		}
	}
	return "", "", false
}

var vms = book{{"web", "user"}: "127.64.0.1", {"db", "lab"}: "172.30.0.2"}

func start(t testing.TB) string {
	t.Helper()
	s, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), vms)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.Addr().String()
}

// say returns an answer as text: its code, whether it is authoritative, and its records'
// data.
func say(r *dns.Msg) string {
	text := dns.RcodeToString[r.Rcode]
	if r.Authoritative {
		text += " aa"
	}
	for _, rr := range r.Answer {
		text += " " + dns.TypeToString[rr.Header().Rrtype] + " " + dns.Field(rr, 1)
	}
	for _, rr := range r.Ns {
		text += " /" + dns.TypeToString[rr.Header().Rrtype] + " " + strconv.Itoa(int(rr.Header().Ttl))
	}
	return text
}

func TestQuestionsAndAnswers(t *testing.T) {
	at := start(t)
	for _, c := range []struct {
		name string
		kind uint16
		want string
	}{
		{"web.vm.", dns.TypeA, "NOERROR aa A 127.64.0.1"},
		{"web.user.vm.", dns.TypeA, "NOERROR aa A 127.64.0.1"},
		{"WeB.vM.", dns.TypeA, "NOERROR aa A 127.64.0.1"},
		{"db.lab.vm.", dns.TypeANY, "NOERROR aa A 172.30.0.2"},
		{"web.vm.", dns.TypeAAAA, "NOERROR aa /SOA 1"},
		{"web.vm.", dns.TypeMX, "NOERROR aa /SOA 1"},
		{"web.lab.vm.", dns.TypeA, "NXDOMAIN aa /SOA 1"},
		{"nobody.vm.", dns.TypeA, "NXDOMAIN aa /SOA 1"},
		{"x.web.user.vm.", dns.TypeA, "NXDOMAIN aa /SOA 1"},
		{"lab.vm.", dns.TypeA, "NOERROR aa /SOA 1"},
		{"vm.", dns.TypeSOA, "NOERROR aa SOA ns.banger.vm."},
		{"vm.", dns.TypeNS, "NOERROR aa NS ns.banger.vm."},
		{"vm.", dns.TypeA, "NOERROR aa /SOA 1"},
		{"ns.banger.vm.", dns.TypeA, "NOERROR aa A 127.0.0.1"},
		{"1.0.64.127.in-addr.arpa.", dns.TypePTR, "NOERROR aa PTR web.user.vm."},
		{"2.0.64.127.in-addr.arpa.", dns.TypePTR, "REFUSED"},
		{"4.3.2.::1.in-addr.arpa.", dns.TypePTR, "REFUSED"},
		{"example.com.", dns.TypeA, "REFUSED"},
		{"webvm.", dns.TypeA, "REFUSED"},
		{`web\.vm.`, dns.TypeA, "REFUSED"},
		{`x\.web.vm.`, dns.TypeA, "NXDOMAIN aa /SOA 1"},
		{".", dns.TypeNS, "REFUSED"},
		{"vm.", dns.TypeAXFR, "REFUSED"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(c.name+dns.TypeToString[c.kind]+" "+network, func(t *testing.T) {
				q := new(dns.Msg).SetQuestion(c.name, c.kind)
				r, _, err := (&dns.Client{Net: network}).Exchange(q, at)
				if err != nil {
					t.Fatal(err)
				}
				if got := say(r); got != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
				if r.Question[0].Name != c.name {
					t.Errorf("the question's letters changed: %s", r.Question[0].Name)
				}
			})
		}
	}
}

// TestAZoneWithoutAServerOfItsOwn checks that a zone of guests has no name of the host's server.
func TestAZoneWithoutAServerOfItsOwn(t *testing.T) {
	z := Zone{Directory: vms}
	for name, want := range map[string]string{
		"web.vm.":       "NOERROR aa A 127.64.0.1",
		"ns.banger.vm.": "NXDOMAIN aa /SOA 1",
		"banger.vm.":    "NXDOMAIN aa /SOA 1",
	} {
		if got := say(z.Answer(new(dns.Msg).SetQuestion(name, dns.TypeA))); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestImproperQuestions(t *testing.T) {
	at := start(t)
	for name, c := range map[string]struct {
		change func(*dns.Msg)
		want   int
	}{
		"an update":             {func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented},
		"a class of its own":    {func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused},
		"a later EDNS":          {func(m *dns.Msg) { m.SetEdns0(4096, false); m.IsEdns0().SetVersion(1) }, dns.RcodeBadVers},
		"two questions":         {func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, dns.RcodeFormatError},
		"EDNS as it should be":  {func(m *dns.Msg) { m.SetEdns0(4096, false) }, dns.RcodeSuccess},
		"recursion not desired": {func(m *dns.Msg) { m.RecursionDesired = false }, dns.RcodeSuccess},
	} {
		t.Run(name, func(t *testing.T) {
			q := new(dns.Msg).SetQuestion("web.vm.", dns.TypeA)
			c.change(q)
			r, err := dns.Exchange(q, at)
			if err != nil {
				t.Fatal(err)
			}
			if r.Rcode != c.want {
				t.Errorf("%s, want %s", dns.RcodeToString[r.Rcode], dns.RcodeToString[c.want])
			}
		})
	}
}

// TestStreamsAreBounded: clients that say nothing hold only their own places.
func TestStreamsAreBounded(t *testing.T) {
	at := start(t)
	for range maxStreams {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if _, err := dns.Exchange(new(dns.Msg).SetQuestion("web.vm.", dns.TypeA), at); err != nil {
		t.Errorf("UDP does not answer meanwhile: %v", err)
	}
}

// FuzzAnswer: whatever is well-formed is answered with the same id and question, and
// what is not does not hurt.
func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"web.vm.", "1.0.64.127.in-addr.arpa.", "4.3.2.::1.in-addr.arpa."} {
		b, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	z := Zone{Directory: vms}
	f.Fuzz(func(t *testing.T, b []byte) {
		var q dns.Msg
		if q.Unpack(b) != nil {
			return
		}
		r := z.Answer(&q)
		if r.Id != q.Id || !r.Response {
			t.Errorf("%v is no answer to %v", r, &q)
		}
		if _, err := r.Pack(); err != nil && len(q.Question) == 1 {
			t.Errorf("the answer cannot be sent: %v", err)
		}
	})
}

// BenchmarkServer asks over loopback from as many clients as there are processors,
// and reports questions per second and the 99th percentile of their time.
func BenchmarkServer(b *testing.B) {
	at := start(b)
	var mu sync.Mutex
	var took []time.Duration
	b.RunParallel(func(pb *testing.PB) {
		conn, err := dns.Dial("udp", at)
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		var mine []time.Duration
		for pb.Next() {
			begin := time.Now()
			if err := conn.WriteMsg(new(dns.Msg).SetQuestion("web.vm.", dns.TypeA)); err != nil {
				b.Error(err)
				return
			}
			if _, err := conn.ReadMsg(); err != nil {
				b.Error(err)
				return
			}
			mine = append(mine, time.Since(begin))
		}
		mu.Lock()
		defer mu.Unlock()
		took = append(took, mine...)
	})
	slices.Sort(took)
	if len(took) > 0 {
		b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "q/s")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	}
}
