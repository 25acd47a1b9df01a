package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"banger"
	"banger/internal/accept"
)

// Gate leads from the host to one guest: it opens ports of the host that are
// forwarded to it, and its flows are bounded.
type Gate struct {
	guest  side
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	flows  flows
	places chan struct{} // one for each connection of a forward, from before the guest is dialled

	mu       sync.Mutex
	forwards map[banger.Forward]*published
}

// side is how a guest is reached.
type side interface {
	// join connects conn, which it owns, to a TCP port, until both ends are closed.
	join(ctx context.Context, port uint16, conn net.Conn) error
	dial(ctx context.Context, port uint16) (net.Conn, error)
	// datagrams returns a new UDP socket that talks to a port.
	datagrams(port uint16) (net.Conn, error)
}

func newGate(guest side, log *slog.Logger) *Gate {
	g := &Gate{guest: guest, log: log, places: make(chan struct{}, maxTCPFlows)}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

// Dial connects conn, which it owns, to a TCP port of the guest, as from the
// gateway, and carries bytes until both ends are closed.
func (g *Gate) Dial(ctx context.Context, port uint16, conn net.Conn) error {
	return g.guest.join(ctx, port, conn)
}

// DialGuest connects to a TCP port of the guest, as from the gateway.
func (g *Gate) DialGuest(ctx context.Context, port uint16) (net.Conn, error) {
	return g.guest.dial(ctx, port)
}

// Connect carries the bytes of a connection of the host to somewhere in the guest,
// until both ends are closed; it owns conn.
type Connect func(ctx context.Context, conn net.Conn) error

// published is one forward in force.
type published struct {
	banger.Forward
	stop func()
}

// Publish carries what comes to file, which it owns, to the guest: by connect, or
// to the forward's port of the guest when connect is nil. admit, unless it is nil, may turn
// a connection or a datagram away by its two ends, in either direction and before the
// guest gets a byte.
func (g *Gate) Publish(f banger.Forward, file *os.File, connect Connect, admit func(from, to netip.AddrPort) bool) error {
	ctx, cancel := context.WithCancel(g.ctx)
	p := &published{Forward: f, stop: cancel}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.forwards[f] != nil {
		cancel()
		file.Close()
		return fmt.Errorf("the forward %s exists already", f)
	}
	var err error
	if f.Protocol == "udp" {
		err = g.publishUDP(ctx, f, file, admit)
	} else {
		if connect == nil {
			connect = func(ctx context.Context, conn net.Conn) error { return g.Dial(ctx, f.GuestPort, conn) }
		}
		err = g.publishTCP(ctx, file, connect, admit)
	}
	if err != nil {
		cancel()
		return err
	}
	if g.forwards == nil {
		g.forwards = map[banger.Forward]*published{}
	}
	g.forwards[f] = p
	return nil
}

// Unpublish ends a forward and the connections that came by it, and reports whether
// there was one.
func (g *Gate) Unpublish(f banger.Forward) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.forwards[f]
	if p == nil {
		return false
	}
	delete(g.forwards, f)
	p.stop()
	return true
}

func (g *Gate) publishTCP(ctx context.Context, file *os.File, connect Connect, admit func(from, to netip.AddrPort) bool) error {
	ln, err := net.FileListener(file)
	file.Close()
	if err != nil {
		return err
	}
	ln = accept.Retry(ln)
	context.AfterFunc(ctx, func() { ln.Close() })
	g.wg.Go(func() {
		defer ln.Close()
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			from, to := endOf(conn.RemoteAddr()), endOf(conn.LocalAddr())
			if !spare(conn.(syscall.Conn)) || admit != nil && !admit(from, to) || !g.reserve() {
				reset(conn)
				continue
			}
			g.wg.Go(func() {
				defer func() { <-g.places }()
				if err := connect(ctx, conn); err != nil {
					g.log.Debug("forward", "err", err)
				}
			})
		}
	})
	return nil
}

// reserve takes a place for a connection and reports whether one was free.
func (g *Gate) reserve() bool {
	select {
	case g.places <- struct{}{}:
		return true
	default:
		return false
	}
}

// reset closes a connection so that its peer sees a refusal.
func reset(conn net.Conn) {
	if t, ok := conn.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	conn.Close()
}

func endOf(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// publishUDP gives each peer of the host's socket a socket of its own towards the
// guest, whose answers so find back.
func (g *Gate) publishUDP(ctx context.Context, f banger.Forward, file *os.File, admit func(from, to netip.AddrPort) bool) error {
	pc, err := net.FilePacketConn(file)
	file.Close()
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { pc.Close() })
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		pc.Close()
		return errors.New("it is no UDP socket")
	}
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	// A port goes from one user to another within a moment, so each datagram is checked.
	admits := func(peer netip.AddrPort) bool { return admit == nil || admit(peer, local) }
	g.wg.Go(func() {
		var wg sync.WaitGroup
		defer wg.Wait()
		peers := map[netip.AddrPort]*flow{}
		var mu sync.Mutex
		buf := make([]byte, pumpSize)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if !admits(from) {
				continue
			}
			mu.Lock()
			peer := peers[from]
			mu.Unlock()
			if peer == nil {
				if peer = g.peer(f.GuestPort, func(p []byte) {
					if admits(from) {
						conn.WriteToUDPAddrPort(p, from)
					}
				}); peer == nil {
					continue
				}
				mu.Lock()
				peers[from] = peer
				mu.Unlock()
				forget := context.AfterFunc(ctx, peer.end)
				wg.Go(func() {
					<-peer.over
					forget()
					mu.Lock()
					defer mu.Unlock()
					delete(peers, from)
				})
			}
			peer.touch()
			peer.send(buf[:n])
		}
	})
	return nil
}

// peer opens a socket that talks to a port of the guest; nil: none is free. It ends
// when it has been idle, like all flows of UDP.
func (g *Gate) peer(port uint16, deliver func([]byte)) *flow {
	conn, err := g.guest.datagrams(port)
	if err != nil {
		return nil
	}
	if c, ok := conn.(syscall.Conn); ok && !spare(c) {
		conn.Close()
		return nil
	}
	from, to := conn.LocalAddr().(*net.UDPAddr), conn.RemoteAddr().(*net.UDPAddr)
	f := &flow{flowKey: flowKey{forwardedUDP, uint16(from.Port), to.AddrPort()}, over: make(chan struct{})}
	f.end = func() { conn.Close() }
	f.send = func(p []byte) { conn.Write(p) }
	if !g.flows.add(f) {
		conn.Close()
		return nil
	}
	g.wg.Go(func() {
		defer close(f.over)
		defer g.flows.remove(f)
		buf := make([]byte, pumpSize)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			f.touch()
			deliver(buf[:n])
		}
	})
	return f
}
