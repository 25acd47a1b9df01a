package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"banger"
	"banger/internal/accept"
)

// Bounds of the guest's questions.
const (
	maxQuestions = 64 // at once
	questionTime = 10 * time.Second
	streamIdle   = 30 * time.Second // RFC 7766, 6.2.3
	maxStreams   = 16
)

// answerer answers the questions of one guest.
type answerer struct {
	id     string // of the VM, on a bridge
	guard  *Guard
	lookup Exchange
	log    *slog.Logger
	// own answers what needs no resolver; nil, also as its answer: ask.
	own func(q *dns.Msg, name string) *dns.Msg
	// learned is called before the guest is told addr for the names of a chain, and
	// not told when it fails.
	learned func(ctx context.Context, chain []string, addr netip.Addr, ttl time.Duration) error
	large   unpacker
}

// questions takes the guests' questions from sockets.
type questions struct {
	ctx     context.Context
	wg      *sync.WaitGroup
	of      func(from netip.Addr) *answerer // nil: nobody whom we answer
	places  chan struct{}
	streams chan struct{}
}

func newQuestions(ctx context.Context, wg *sync.WaitGroup, of func(netip.Addr) *answerer) *questions {
	return &questions{ctx: ctx, wg: wg, of: of, places: make(chan struct{}, maxQuestions), streams: make(chan struct{}, maxStreams)}
}

// serve answers until the context ends. It owns pc and ln.
func (s *questions) serve(pc net.PacketConn, ln net.Listener) {
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

func (s *questions) answerDatagrams(pc net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		who := s.of(addrOfPeer(from))
		if who == nil {
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
			if answer := who.answer(s.ctx, query, portOfPeer(from), false); answer != nil {
				pc.WriteTo(answer, from)
			}
		})
	}
}

func (s *questions) answerStreams(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		who := s.of(addrOfPeer(conn.RemoteAddr()))
		if who == nil {
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
				query, err := readMessage(conn)
				if err != nil {
					return
				}
				answer := who.answer(s.ctx, query, portOfPeer(conn.RemoteAddr()), true)
				if answer == nil || writeMessage(conn, answer) != nil {
					return
				}
			}
		})
	}
}

// serveDNS listens on the resolver's address inside the stack, and on the gateway's
// for guests that expect it there.
func (s *Stack) serveDNS(lookup Exchange) error {
	who := &answerer{guard: s.guard, lookup: lookup, log: s.log}
	who.learned = func(_ context.Context, chain []string, addr netip.Addr, ttl time.Duration) error {
		for _, name := range chain {
			s.guard.learn(addr, name, ttl, time.Now())
		}
		return nil
	}
	q := newQuestions(s.ctx, &s.wg, func(netip.Addr) *answerer { return who })
	for _, a := range []netip.Addr{UserDNS, UserGateway} {
		at := tcpip.FullAddress{NIC: nic, Addr: address(a), Port: 53}
		pc, err := gonet.DialUDP(s.net, &at, nil, protocolIPv4)
		if err != nil {
			return fmt.Errorf("listening for DNS: %w", err)
		}
		ln, err := gonet.ListenTCP(s.net, at, protocolIPv4)
		if err != nil {
			pc.Close()
			return fmt.Errorf("listening for DNS: %w", err)
		}
		q.serve(pc, ln)
	}
	return nil
}

// answer answers one message; nil means that it deserves none.
func (s *answerer) answer(ctx context.Context, query []byte, source uint16, stream bool) []byte {
	if !isQuestion(query) {
		return notImplemented(query)
	}
	var q dns.Msg
	if err := q.Unpack(query); err != nil || q.Response {
		return nil
	}
	var held hold
	defer held.end()
	r := s.resolve(ctx, &q, source, stream, &held)
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

// notImplemented answers a message that is no question of a resolver by its header alone, if it
// is a message and no answer.
func notImplemented(query []byte) []byte {
	if len(query) < 12 || query[2]&0x80 != 0 {
		return nil
	}
	r := dns.Msg{MsgHdr: dns.MsgHdr{Id: binary.BigEndian.Uint16(query), Response: true, Opcode: int(query[2]>>3) & 15, Rcode: dns.RcodeNotImplemented}}
	b, err := r.Pack()
	if err != nil {
		return nil
	}
	return b
}

// resolve asks the resolver what the policy lets the guest ask, and removes from
// the answer what the policy does not let it know. Other large answers wait until held ends.
func (s *answerer) resolve(ctx context.Context, q *dns.Msg, source uint16, stream bool, held *hold) *dns.Msg {
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery {
		return new(dns.Msg).SetRcode(q, dns.RcodeNotImplemented)
	}
	name := canonical(q.Question[0].Name)
	if s.own != nil {
		if r := s.own(q, name); r != nil {
			return r
		}
	}
	if ok, why := s.guard.mayResolve([]string{name}); !ok {
		return s.refuse(q, source, name, why)
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
	if b, err = s.lookup(ctx, b, stream); err == nil {
		err = s.large.unpack(b, &r, held)
	}
	if err != nil || len(r.Question) != 1 || canonical(r.Question[0].Name) != name || r.Question[0].Qtype != ask.Question[0].Qtype {
		s.log.Debug("no answer from the host's resolver", "err", err)
		return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	}
	if ipv6 && r.Rcode == dns.RcodeSuccess { // nothing is better than a black hole
		return new(dns.Msg).SetReply(q)
	}
	r.Question = q.Question
	return s.filter(ctx, q, &r, source, name)
}

// filter lets the guest know what it may, and remembers it.
func (s *answerer) filter(ctx context.Context, q, r *dns.Msg, source uint16, name string) *dns.Msg {
	chain, ttl := aliases(r.Answer, name)
	if ok, why := s.guard.mayResolve(chain); !ok {
		return s.refuse(q, source, strings.Join(chain, " -> "), why)
	}
	stripped, failure := false, error(nil)
	keep := func(list []dns.RR) []dns.RR {
		var out []dns.RR
		for _, rr := range list {
			switch v := rr.(type) {
			case *dns.A:
				addr, ok := netip.AddrFromSlice(v.A.To4())
				if !ok || !s.guard.mayAnswer(addr) {
					stripped = true
					continue
				}
				if owner := canonical(v.Hdr.Name); owner == chain[len(chain)-1] {
					failure = errors.Join(failure, s.learned(ctx, chain, addr, min(ttl, time.Duration(v.Hdr.Ttl)*time.Second)))
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
		s.log.Warn("a name is not told", "name", name, "err", failure)
		return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	}
	if stripped && len(r.Answer) == 0 {
		s.guard.deny(banger.Denial{Protocol: "dns", Source: source, Name: name, Rule: "built in: an answer that leads to a private or local address is removed"})
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
	chain, ttl = []string{name}, maxLearnTTL
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

// refuse answers that the policy forbids the name, with the reason for those who
// read it (RFC 8914, code 15).
func (s *answerer) refuse(q *dns.Msg, source uint16, name, why string) *dns.Msg {
	s.guard.deny(banger.Denial{Protocol: "dns", Source: source, Name: name, Rule: why})
	r := new(dns.Msg).SetRcode(q, dns.RcodeRefused)
	if q.IsEdns0() != nil {
		r.SetEdns0(4096, false)
		r.IsEdns0().Option = append(r.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeBlocked, ExtraText: why})
	}
	return r
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
