// Package dns is the domain of VMs: NAME.vm and NAME.NETWORK.vm, and the reverse. Zone answers questions about it,
// for the host and for guests. Server serves a zone to the host. The package also knows how the host's own resolver
// is configured for the server (Host).
//
// The package must not know of VMs, HTTP or rows: a Directory has the names.
package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"

	"banger/internal/accept"
)

// Limits of one server.
const (
	maxStreams  = 64
	streamIdle  = 10 * time.Second // RFC 7766, 6.2.3
	maxPerQuery = 128              // questions on one stream
	udpSize     = 1232             // bytes (dnsflagday.net/2020)
)

// Server answers on one address, over UDP and TCP.
type Server struct {
	zone    Zone
	addr    netip.AddrPort
	servers []*dns.Server
	wg      sync.WaitGroup
}

// Listen starts a server on at. Port 0 means any free port. Close ends the server.
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
	s := &Server{zone: Zone{Directory: dir, Self: netip.AddrFrom4([4]byte{127, 0, 0, 1})}, addr: addr}
	limited := accept.Retry(netutil.LimitListener(ln, maxStreams)) // dns.Server itself does not pause between errors
	s.servers = []*dns.Server{
		{PacketConn: pc, Handler: s, UDPSize: dns.MinMsgSize},
		{
			Listener:       limited,
			Handler:        s,
			MaxTCPQueries:  maxPerQuery,
			DecorateReader: shortOnly,
			ReadTimeout:    streamIdle,
			WriteTimeout:   streamIdle,
			IdleTimeout:    func() time.Duration { return streamIdle },
		},
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

// shortOnly ends a stream at a message that is longer than a UDP message may be. No question is that long, and a
// few bytes of a message can be decompressed to a long name.
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

// Addr returns the address on which the server listens.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Close ends the server and returns when all of it has ended.
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
	r := s.zone.Answer(q)
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		size := dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			size = max(size, min(int(opt.UDPSize()), udpSize))
		}
		r.Truncate(size)
	}
	w.WriteMsg(r) // a client that does not read the answer asks again
}

// Probe returns an error unless the server at the address answers for the domain.
func Probe(ctx context.Context, at netip.AddrPort) error {
	r, err := dns.ExchangeContext(ctx, new(dns.Msg).SetQuestion(Self+".", dns.TypeA), at.String())
	if err == nil && (r.Rcode != dns.RcodeSuccess || !r.Authoritative || len(r.Answer) != 1) {
		err = fmt.Errorf("%s answers, but not for %s", at, Domain)
	}
	return err
}
