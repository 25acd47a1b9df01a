package dns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Domain is the domain of all VMs.
const Domain = "vm"

// Self is the name of the server that serves the zone to the host, at 127.0.0.1.
const Self = "ns.banger." + Domain

// TTL is how long an answer is valid, in seconds, even a negative one: VMs come and go.
const TTL = 1

// Directory knows which VMs have addresses now. Names are labels in lower case. Its methods may be called
// concurrently.
type Directory interface {
	// Address returns the address of a VM; "" means on any network.
	Address(vm, network string) (netip.Addr, bool)
	// HasNetwork reports whether a VM with an address is on the network.
	HasNetwork(network string) bool
	// Name returns the VM that has an address.
	Name(addr netip.Addr) (vm, network string, ok bool)
}

// Zone is the domain of VMs according to a directory. It answers nothing else.
type Zone struct {
	Directory Directory
	Self      netip.Addr // address of the name Self; without it the name does not exist
}

// Answer returns the answer to q (RFC 1034, 4.3.2; RFC 6891; RFC 8482 for ANY).
func (z Zone) Answer(q *dns.Msg) *dns.Msg {
	r := new(dns.Msg).SetReply(q)
	r.RecursionAvailable = false
	if opt := q.IsEdns0(); opt != nil {
		r.SetEdns0(udpSize, false)
		if opt.Version() != 0 {
			r.Rcode = dns.RcodeBadVers
			return r
		}
	}
	switch {
	case q.Opcode != dns.OpcodeQuery:
		r.Rcode = dns.RcodeNotImplemented
		return r
	case len(q.Question) != 1:
		r.Rcode = dns.RcodeFormatError
		return r
	}
	asked := q.Question[0]
	name := strings.ToLower(strings.TrimSuffix(asked.Name, "."))
	if asked.Qclass != dns.ClassINET || asked.Qtype == dns.TypeAXFR || asked.Qtype == dns.TypeIXFR {
		r.Rcode = dns.RcodeRefused
		return r
	}
	if strings.HasSuffix(name, ".in-addr.arpa") {
		z.reverse(r, name)
		return r
	}
	if !dns.IsSubDomain(Domain+".", asked.Name) { // compares labels, which may contain a dot
		r.Rcode = dns.RcodeRefused // not in our domain
		return r
	}
	z.forward(r, name)
	return r
}

// forward answers a question about a name within the domain.
func (z Zone) forward(r *dns.Msg, name string) {
	r.Authoritative = true
	asked := r.Question[0]
	exists := z.exists(name)
	header := func(t uint16) dns.RR_Header {
		return dns.RR_Header{Name: asked.Name, Rrtype: t, Class: dns.ClassINET, Ttl: TTL}
	}
	addr, ok := z.address(name)
	switch {
	case ok && (asked.Qtype == dns.TypeA || asked.Qtype == dns.TypeANY):
		r.Answer = []dns.RR{&dns.A{Hdr: header(dns.TypeA), A: addr.AsSlice()}}
	case name == Domain && (asked.Qtype == dns.TypeSOA || asked.Qtype == dns.TypeANY):
		r.Answer = []dns.RR{soa(asked.Name)}
	case name == Domain && asked.Qtype == dns.TypeNS:
		r.Answer = []dns.RR{&dns.NS{Hdr: header(dns.TypeNS), Ns: Self + "."}}
	default:
		if !exists {
			r.Rcode = dns.RcodeNameError
		}
		r.Ns = []dns.RR{soa(Domain + ".")} // says how long the negative answer is valid (RFC 2308, 3)
	}
}

func (z Zone) exists(name string) bool {
	if _, ok := z.address(name); ok || name == Domain || z.Self.IsValid() && name == strings.TrimPrefix(Self, "ns.") {
		return true
	}
	network, ok := strings.CutSuffix(name, "."+Domain)
	return ok && z.Directory.HasNetwork(network) // the VMs are below it (RFC 8020)
}

func (z Zone) address(name string) (netip.Addr, bool) {
	if name == Self {
		return z.Self, z.Self.IsValid()
	}
	rest, ok := strings.CutSuffix(name, "."+Domain)
	if !ok {
		return netip.Addr{}, false
	}
	vm, network, _ := strings.Cut(rest, ".")
	if strings.Contains(network, ".") || network == "" && strings.Contains(rest, ".") {
		return netip.Addr{}, false
	}
	return z.Directory.Address(vm, network)
}

// reverse answers which VM has an address. It refuses questions about other addresses.
func (z Zone) reverse(r *dns.Msg, name string) {
	asked := r.Question[0]
	labels := strings.Split(strings.TrimSuffix(name, ".in-addr.arpa"), ".")
	r.Rcode = dns.RcodeRefused
	if len(labels) != 4 {
		return
	}
	slices.Reverse(labels)
	addr, err := netip.ParseAddr(strings.Join(labels, "."))
	if err != nil || !addr.Is4() {
		return
	}
	vm, network, ok := z.Directory.Name(addr)
	if !ok {
		return
	}
	r.Rcode, r.Authoritative = dns.RcodeSuccess, true
	if asked.Qtype == dns.TypePTR || asked.Qtype == dns.TypeANY {
		header := dns.RR_Header{Name: asked.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: TTL}
		r.Answer = []dns.RR{&dns.PTR{Hdr: header, Ptr: vm + "." + network + "." + Domain + "."}}
	}
}

func soa(owner string) dns.RR {
	return &dns.SOA{
		Hdr:     dns.RR_Header{Name: owner, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: TTL},
		Ns:      Self + ".",
		Mbox:    "hostmaster." + Self + ".",
		Serial:  1,
		Refresh: 3600,
		Retry:   600,
		Expire:  86400,
		Minttl:  TTL,
	}
}
