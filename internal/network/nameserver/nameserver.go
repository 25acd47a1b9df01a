// Package nameserver answers the DNS questions of guests with the host's resolver, within the
// limits of a guest's policy and of memory. Both kinds of network serve it on their own sockets.
//
// The package must not know of network stacks, netlink, VMMs or rows.
package nameserver

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"banger"
	"banger/internal/accept"
	"banger/internal/network"
	"banger/internal/network/policy"
)

// Bounds of the guest's questions.
const (
	maxQuestions = 64 // at once
	questionTime = 10 * time.Second
	streamIdle   = 30 * time.Second // RFC 7766, 6.2.3
	maxStreams   = 16
)

// Guest defines how the questions of one guest are answered.
type Guest struct {
	Guard  *policy.Guard
	Lookup network.Exchange // asks the host's resolver
	Log    *slog.Logger
	// Gateway is the address of the host's names (see banger.HostNames).
	Gateway netip.Addr
	// Own answers a question that needs no resolver. A nil answer means that Lookup is asked.
	// Own may be nil.
	Own func(q *dns.Msg, name string) *dns.Msg
	// Learn is called before the guest gets addr as an answer for the names of a chain. If Learn
	// fails, the guest does not get the answer.
	Learn func(ctx context.Context, chain []string, addr netip.Addr, ttl time.Duration) error

	large unpacker
}

// Server takes the questions of guests from sockets.
type Server struct {
	ctx     context.Context
	wg      *sync.WaitGroup
	find    func(from netip.Addr) *Guest
	places  chan struct{}
	streams chan struct{}
}

// New returns a server that works until ctx ends. Its goroutines are added to wg. Find returns
// the guest with an address, or nil if its questions are not answered.
func New(ctx context.Context, wg *sync.WaitGroup, find func(from netip.Addr) *Guest) *Server {
	return &Server{
		ctx:     ctx,
		wg:      wg,
		find:    find,
		places:  make(chan struct{}, maxQuestions),
		streams: make(chan struct{}, maxStreams),
	}
}

// Serve answers what comes to pc and ln, which it owns, until the server's context ends. It
// returns at once.
func (s *Server) Serve(pc net.PacketConn, ln net.Listener) {
	ln = accept.Retry(ln)
	context.AfterFunc(s.ctx, func() { pc.Close(); ln.Close() })
	s.wg.Go(func() { s.answerDatagrams(pc) })
	s.wg.Go(func() { s.answerStreams(ln) })
}

func addrOfPeer(a net.Addr) netip.Addr {
	switch v := a.(type) {
	case *net.UDPAddr:
		return v.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return v.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

func portOfPeer(a net.Addr) uint16 {
	switch v := a.(type) {
	case *net.UDPAddr:
		return v.AddrPort().Port()
	case *net.TCPAddr:
		return v.AddrPort().Port()
	}
	return 0
}

func (s *Server) answerDatagrams(pc net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		guest := s.find(addrOfPeer(from))
		if guest == nil {
			continue
		}
		query := append([]byte(nil), buf[:n]...)
		select {
		case s.places <- struct{}{}:
		default:
			continue // too many at once; the guest asks again
		}
		s.wg.Go(func() {
			defer func() { <-s.places }()
			if answer := guest.answer(s.ctx, query, portOfPeer(from), false); answer != nil {
				pc.WriteTo(answer, from)
			}
		})
	}
}

func (s *Server) answerStreams(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		guest := s.find(addrOfPeer(conn.RemoteAddr()))
		if guest == nil {
			conn.Close()
			continue
		}
		select {
		case s.streams <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		s.wg.Go(func() {
			defer func() { <-s.streams }()
			defer conn.Close()
			defer context.AfterFunc(s.ctx, func() { conn.Close() })()
			for {
				conn.SetDeadline(time.Now().Add(streamIdle))
				query, err := network.ReadMessage(conn)
				if err != nil {
					return
				}
				answer := guest.answer(s.ctx, query, portOfPeer(conn.RemoteAddr()), true)
				if answer == nil || network.WriteMessage(conn, answer) != nil {
					return
				}
			}
		})
	}
}

// answer answers one message. It returns nil for a message that gets no answer.
func (g *Guest) answer(ctx context.Context, query []byte, source uint16, stream bool) []byte {
	if !isQuestion(query) {
		return notImplemented(query)
	}
	var q dns.Msg
	if err := q.Unpack(query); err != nil || q.Response {
		return nil
	}
	var held hold
	defer held.end()
	r := g.resolve(ctx, &q, source, stream, &held)
	r.Id, r.Compress = q.Id, true // else one that was compressed may not fit any more
	size := dns.MinMsgSize
	if opt := q.IsEdns0(); opt != nil {
		size = max(size, min(int(opt.UDPSize()), 4096))
	}
	if !stream {
		r.Truncate(size)
	}
	b, err := r.Pack()
	if err != nil {
		return nil
	}
	return b
}

// notImplemented answers a message that a resolver would not send, by its header alone. It returns
// nil if the message is too short or is an answer.
func notImplemented(query []byte) []byte {
	if len(query) < 12 || query[2]&0x80 != 0 {
		return nil
	}
	r := dns.Msg{MsgHdr: dns.MsgHdr{
		Id:       binary.BigEndian.Uint16(query),
		Response: true,
		Opcode:   int(query[2]>>3) & 15,
		Rcode:    dns.RcodeNotImplemented,
	}}
	b, err := r.Pack()
	if err != nil {
		return nil
	}
	return b
}

// resolve asks the resolver if the policy allows the question, and removes from the answer what the
// policy does not allow. Other large answers wait until held ends.
func (g *Guest) resolve(ctx context.Context, q *dns.Msg, source uint16, stream bool, held *hold) *dns.Msg {
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery {
		return new(dns.Msg).SetRcode(q, dns.RcodeNotImplemented)
	}
	name := canonical(q.Question[0].Name)
	if slices.Contains(banger.HostNames, name) {
		return g.nameHost(q, source, name)
	}
	if g.Own != nil {
		if r := g.Own(q, name); r != nil {
			return r
		}
	}
	if ok, why := g.Guard.MayResolve([]string{name}); !ok {
		return g.refuse(q, []string{name}, source, why)
	}
	ask := q.Copy()
	ask.Id = dns.Id()
	ipv6 := q.Question[0].Qtype == dns.TypeAAAA
	if ipv6 { // the guest has none, so that only this matters: is there such a name (RFC 8020)
		ask.Question[0].Qtype = dns.TypeA
	}
	b, err := ask.Pack()
	if err != nil {
		return new(dns.Msg).SetRcode(q, dns.RcodeFormatError)
	}
	ctx, cancel := context.WithTimeout(ctx, questionTime)
	defer cancel()
	var r dns.Msg
	if b, err = g.Lookup(ctx, b, stream); err == nil {
		err = g.large.unpack(b, &r, held)
	}
	if err != nil || len(r.Question) != 1 || canonical(r.Question[0].Name) != name ||
		r.Question[0].Qtype != ask.Question[0].Qtype {
		g.Log.Debug("no answer from the host's resolver", "err", err)
		return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	}
	if ipv6 && r.Rcode == dns.RcodeSuccess { // nothing is better than a black hole
		return new(dns.Msg).SetReply(q)
	}
	r.Question = q.Question
	return g.filter(ctx, q, &r, source, name)
}

// hostTTL is how long a guest may remember the host's names, in seconds, because a policy can change.
const hostTTL = 5

// nameHost answers a question about one of the host's names, if the policy lets the guest reach the host.
func (g *Guest) nameHost(q *dns.Msg, source uint16, name string) *dns.Msg {
	if ok, why := g.Guard.MayReachHost(); !ok {
		return g.refuse(q, []string{name}, source, why)
	}
	r := new(dns.Msg).SetReply(q)
	if q.Question[0].Qtype == dns.TypeA {
		r.Answer = []dns.RR{&dns.A{A: g.Gateway.AsSlice(), Hdr: dns.RR_Header{Name: q.Question[0].Name,
			Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: hostTTL}}}
	}
	return r
}

// filter removes from an answer what the policy does not allow, and calls Learn for the rest.
func (g *Guest) filter(ctx context.Context, q, r *dns.Msg, source uint16, name string) *dns.Msg {
	chain, ttl := aliases(r.Answer, name)
	if ok, why := g.Guard.MayResolve(chain); !ok {
		return g.refuse(q, chain, source, why)
	}
	stripped, failure := false, error(nil)
	keep := func(list []dns.RR) []dns.RR {
		var out []dns.RR
		for _, rr := range list {
			switch v := rr.(type) {
			case *dns.A:
				addr, ok := netip.AddrFromSlice(v.A.To4())
				if !ok || !g.Guard.MayAnswer(addr) {
					stripped = true
					continue
				}
				if owner := canonical(v.Hdr.Name); owner == chain[len(chain)-1] {
					failure = errors.Join(failure, g.Learn(ctx, chain, addr, min(ttl, time.Duration(v.Hdr.Ttl)*time.Second)))
				}
			case *dns.AAAA:
				continue
			case *dns.SVCB:
				v.Value = withoutHints(v.Value)
			case *dns.HTTPS:
				v.Value = withoutHints(v.Value)
			}
			out = append(out, rr)
		}
		return out
	}
	r.Answer, r.Ns, r.Extra = keep(r.Answer), keep(r.Ns), keep(r.Extra)
	if failure != nil {
		g.Log.Warn("a name is not answered", "name", name, "err", failure)
		return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	}
	if stripped && len(r.Answer) == 0 {
		const rule = "built in: an answer that leads to a private or local address is removed"
		g.Guard.Report(banger.Decision{Protocol: "dns", Source: source, Name: name, Rule: rule})
	}
	return r
}

// withoutHints removes addresses from a service record (RFC 9460, 7.3): the guest
// asks for them by name.
func withoutHints(values []dns.SVCBKeyValue) []dns.SVCBKeyValue {
	var out []dns.SVCBKeyValue
	for _, v := range values {
		if k := v.Key(); k != dns.SVCB_IPV4HINT && k != dns.SVCB_IPV6HINT {
			out = append(out, v)
		}
	}
	return out
}

// maxAliases bounds a chain of CNAME records.
const maxAliases = 16

// aliases follows the CNAME records from name and returns all names of the chain,
// with the shortest time that one of its links holds.
func aliases(answer []dns.RR, name string) (chain []string, ttl time.Duration) {
	chain, ttl = []string{name}, policy.MaxTTL
	for len(chain) <= maxAliases {
		next := ""
		for _, rr := range answer {
			if c, ok := rr.(*dns.CNAME); ok && canonical(c.Hdr.Name) == chain[len(chain)-1] {
				next = canonical(c.Target)
				ttl = min(ttl, time.Duration(c.Hdr.Ttl)*time.Second)
				break
			}
		}
		if next == "" {
			break
		}
		chain = append(chain, next)
	}
	return chain, ttl
}

// refuse returns an answer that says that the policy forbids one of the names of chain. It contains the reason for
// clients that read it (RFC 8914, code 15).
func (g *Guest) refuse(q *dns.Msg, chain []string, source uint16, why string) *dns.Msg {
	g.Guard.RefuseName(chain, source, why)
	r := new(dns.Msg).SetRcode(q, dns.RcodeRefused)
	if q.IsEdns0() != nil {
		r.SetEdns0(4096, false)
		reason := &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeBlocked, ExtraText: why}
		r.IsEdns0().Option = append(r.IsEdns0().Option, reason)
	}
	return r
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
