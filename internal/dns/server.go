// Package dns serves the names of VMs to the host: NAME.vm and NAME.NETWORK.vm, and
// the way back. It is authoritative for the domain vm and answers nothing else. It
// also knows how the host's own resolver is told of it (Host).
//
// The package must not know of VMs, HTTP or rows: a Directory has the names.
package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"

	"banger/internal/accept"
)

// Domain is the domain of all VMs.
const Domain = "vm"

// Self is a name that is always there, with the address 127.0.0.1: the server's own.
const Self = "ns.banger." + Domain

// TTL is how long an answer holds, in seconds, also one that there is no such name:
// VMs come and go.
const TTL = 1

// Bounds of what one server has open.
const (
	maxStreams  = 64
	streamIdle  = 10 * time.Second // RFC 7766, 6.2.3
	maxPerQuery = 128              // questions on one stream
	udpSize     = 1232             // bytes (dnsflagday.net/2020)
)

// Directory knows which VMs have addresses now. Names are labels in lower case. Its
// methods are called concurrently.
type Directory interface {
	// Address returns the address of a VM; with network "" of whichever network.
	Address(vm, network string) (netip.Addr, bool)
	// HasNetwork says whether a VM with an address is on the network.
	HasNetwork(network string) bool
	// Name returns who has an address.
	Name(addr netip.Addr) (vm, network string, ok bool)
}

// Server answers on one address, by UDP and TCP.
type Server struct {
	dir     Directory
	addr    netip.AddrPort
	servers []*dns.Server
	wg      sync.WaitGroup
}

// Listen starts a server on at; port 0 is any that is free. Close ends it.
func Listen(at netip.AddrPort, dir Directory) (*Server, error) {
	ln, err := net.Listen("tcp", at.String())
	if err != nil {
		return nil, err
	}
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	pc, err := net.ListenPacket("udp", addr.String())
	if err != nil {
		ln.Close()
		return nil, err
	}
	s := &Server{dir: dir, addr: addr}
	limited := accept.Retry(netutil.LimitListener(ln, maxStreams)) // dns.Server itself does not rest between errors
	s.servers = []*dns.Server{
		{PacketConn: pc, Handler: s, UDPSize: dns.MinMsgSize},
		{Listener: limited, Handler: s, MaxTCPQueries: maxPerQuery, DecorateReader: shortOnly, ReadTimeout: streamIdle, WriteTimeout: streamIdle, IdleTimeout: func() time.Duration { return streamIdle }},
	}
	for _, one := range s.servers {
		started := make(chan struct{})
		one.NotifyStartedFunc = func() { close(started) }
		failed := make(chan error, 1)
		s.wg.Go(func() { failed <- one.ActivateAndServe() })
		select {
		case <-started:
		case err := <-failed:
			s.Close()
			return nil, fmt.Errorf("serving DNS on %s: %w", addr, err)
		}
	}
	return s, nil
}

// shortOnly ends a stream with a message that is longer than one by UDP may be. No question is as
// long, and a few bytes of a message can stand for a name of many.
func shortOnly(r dns.Reader) dns.Reader { return shortReader{r} }

type shortReader struct{ dns.Reader }

// ReadTCP implements dns.Reader.
func (r shortReader) ReadTCP(conn net.Conn, timeout time.Duration) ([]byte, error) {
	m, err := r.Reader.ReadTCP(conn, timeout)
	if err == nil && len(m) > dns.MinMsgSize {
		return nil, errors.New("the message is longer than a question")
	}
	return m, err
}

// Addr is where the server listens.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Close ends the server and returns when nothing of it is left.
func (s *Server) Close() error {
	var errs []error
	for _, one := range s.servers {
		if err := one.Shutdown(); err != nil && !strings.Contains(err.Error(), "not started") {
			errs = append(errs, err)
		}
	}
	s.wg.Wait()
	return errors.Join(errs...)
}

// ServeDNS answers one message.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	r := s.Answer(q)
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		size := dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			size = max(size, min(int(opt.UDPSize()), udpSize))
		}
		r.Truncate(size)
	}
	w.WriteMsg(r) // who does not read it asks again
}

// Answer returns the answer to q (RFC 1034, 4.3.2; RFC 6891; RFC 8482 for ANY).
func (s *Server) Answer(q *dns.Msg) *dns.Msg {
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
		s.reverse(r, name)
		return r
	}
	if !dns.IsSubDomain(Domain+".", asked.Name) { // by labels, of which one may have a dot in it
		r.Rcode = dns.RcodeRefused // not ours to say
		return r
	}
	s.forward(r, name)
	return r
}

// forward answers about a name within the domain.
func (s *Server) forward(r *dns.Msg, name string) {
	r.Authoritative = true
	asked := r.Question[0]
	exists := s.exists(name)
	header := func(t uint16) dns.RR_Header {
		return dns.RR_Header{Name: asked.Name, Rrtype: t, Class: dns.ClassINET, Ttl: TTL}
	}
	addr, ok := s.address(name)
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
		r.Ns = []dns.RR{soa(Domain + ".")} // for how long there is nothing (RFC 2308, 3)
	}
}

func (s *Server) exists(name string) bool {
	if _, ok := s.address(name); ok || name == Domain || name == strings.TrimPrefix(Self, "ns.") {
		return true
	}
	network, ok := strings.CutSuffix(name, "."+Domain)
	return ok && s.dir.HasNetwork(network) // its VMs are below it (RFC 8020)
}

func (s *Server) address(name string) (netip.Addr, bool) {
	if name == Self {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
	}
	rest, ok := strings.CutSuffix(name, "."+Domain)
	if !ok {
		return netip.Addr{}, false
	}
	vm, network, _ := strings.Cut(rest, ".")
	if strings.Contains(network, ".") || network == "" && strings.Contains(rest, ".") {
		return netip.Addr{}, false
	}
	return s.dir.Address(vm, network)
}

// reverse answers who has an address. Of addresses of nobody we say nothing.
func (s *Server) reverse(r *dns.Msg, name string) {
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
	vm, network, ok := s.dir.Name(addr)
	if !ok {
		return
	}
	r.Rcode, r.Authoritative = dns.RcodeSuccess, true
	if asked.Qtype == dns.TypePTR || asked.Qtype == dns.TypeANY {
		r.Answer = []dns.RR{&dns.PTR{Hdr: dns.RR_Header{Name: asked.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: TTL}, Ptr: vm + "." + network + "." + Domain + "."}}
	}
}

// Probe asks a server whether it answers for the domain.
func Probe(ctx context.Context, at netip.AddrPort) error {
	r, err := dns.ExchangeContext(ctx, new(dns.Msg).SetQuestion(Self+".", dns.TypeA), at.String())
	if err == nil && (r.Rcode != dns.RcodeSuccess || !r.Authoritative || len(r.Answer) != 1) {
		err = fmt.Errorf("%s answers, but not for %s", at, Domain)
	}
	return err
}

func soa(owner string) dns.RR {
	return &dns.SOA{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: TTL},
		Ns: Self + ".", Mbox: "hostmaster." + Self + ".", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: TTL}
}
