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

// Gate leads from the host to one guest. It carries what comes to ports of the host to the
// guest, within the bounds of the guest's flows.
type Gate struct {
	guest  Guest
	flows  *Flows
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	moved  moved
	places chan struct{} // one for each connection of a forward, from before the guest is dialled

	mu       sync.Mutex
	forwards map[banger.Forward]*published
	held     bool // what comes waits in the sockets
	closed   bool
}

// Guest connects to the ports of one guest, as from its gateway.
type Guest interface {
	// Join connects conn, which it owns, to a TCP port, until both ends are closed.
	Join(ctx context.Context, port uint16, conn net.Conn) error
	// Dial connects to a TCP port.
	Dial(ctx context.Context, port uint16) (net.Conn, error)
	// Datagrams returns a new UDP socket that talks to a port.
	Datagrams(port uint16) (net.Conn, error)
}

// NewGate returns a gate to guest, whose flows it adds to flows. The caller lets the flows
// expire. Close, or the end of ctx, ends the gate.
func NewGate(ctx context.Context, guest Guest, flows *Flows, log *slog.Logger) *Gate {
	g := &Gate{guest: guest, flows: flows, log: log, places: make(chan struct{}, maxTCPFlows)}
	g.ctx, g.cancel = context.WithCancel(ctx)
	return g
}

// Close ends all forwards and all flows, and returns when nothing of them is left.
func (g *Gate) Close() {
	g.mu.Lock()
	g.closed = true
	for _, p := range g.forwards {
		p.end()
	}
	g.mu.Unlock()
	g.cancel()
	g.flows.CloseAll()
	g.wg.Wait()
}

// Dial connects conn, which it owns, to a TCP port of the guest, as from the
// gateway, and carries bytes until both ends are closed.
func (g *Gate) Dial(ctx context.Context, port uint16, conn net.Conn) error {
	return g.guest.Join(ctx, port, conn)
}

// DialGuest connects to a TCP port of the guest, as from the gateway.
func (g *Gate) DialGuest(ctx context.Context, port uint16) (net.Conn, error) {
	return g.guest.Dial(ctx, port)
}

// Connect carries the bytes of a connection of the host to somewhere in the guest,
// until both ends are closed; it owns conn.
type Connect func(ctx context.Context, conn net.Conn) error

// maxDatagram is the size of a buffer that holds any datagram, in bytes.
const maxDatagram = 64 << 10

// published is one forward in force.
type published struct {
	banger.Forward
	connect Connect
	admit   Admit
	ctx     context.Context // ends with the forward, and ends its connections
	cancel  context.CancelFunc
	held    *os.File                 // the socket, while the gate is held
	copy    func() (*os.File, error) // returns another descriptor of the socket; nil while the gate is held
	pause   func()                   // ends the reading from the socket, but no connection
}

// end ends the forward and its connections. The gate's mu is held.
func (p *published) end() {
	p.cancel()
	p.held.Close()
	p.held = nil
}

// Admit reports whether a connection or a datagram from one end to another may pass.
type Admit func(from, to netip.AddrPort) bool

// errClosed means that the VM has ended.
var errClosed = errors.New("the network of the VM has ended")

// Publish carries what comes to file, which it owns, to the guest: by connect, or
// to the forward's port of the guest when connect is nil. Unless admit is nil, only what it
// admits passes: it is asked for each connection, and for each datagram of either direction,
// before the guest gets a byte.
func (g *Gate) Publish(f banger.Forward, file *os.File, connect Connect, admit Admit) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.forwards[f] != nil {
		file.Close()
		if g.closed {
			return errClosed
		}
		return fmt.Errorf("the forward %s exists already", f)
	}
	if connect == nil {
		connect = func(ctx context.Context, conn net.Conn) error { return g.Dial(ctx, f.GuestPort, conn) }
	}
	p := &published{Forward: f, connect: connect, admit: admit, held: file}
	p.ctx, p.cancel = context.WithCancel(g.ctx)
	if !g.held {
		if err := g.serve(p); err != nil {
			p.end()
			return err
		}
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
	p.end()
	return true
}

// serve begins to carry what comes to the socket that p holds. g.mu is held.
func (g *Gate) serve(p *published) error {
	file := p.held
	p.held = nil
	if p.Protocol == "udp" {
		return g.publishUDP(p, file)
	}
	return g.publishTCP(p, file)
}

func (g *Gate) publishTCP(p *published, file *os.File) error {
	socket, err := net.FileListener(file)
	file.Close()
	if err != nil {
		return err
	}
	tcp, ok := socket.(*net.TCPListener)
	if !ok {
		socket.Close()
		return errors.New("it is not a listening socket of TCP")
	}
	ln := accept.Retry(tcp)
	p.copy, p.pause = tcp.File, func() { ln.Close() }
	context.AfterFunc(p.ctx, p.pause)
	g.wg.Go(func() {
		defer ln.Close()
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			from, to := endOf(conn.RemoteAddr()), endOf(conn.LocalAddr())
			if p.admit != nil && !p.admit(from, to) || !g.carry(p, conn) {
				Reset(conn)
			}
		}
	})
	return nil
}

// carry connects conn, which it then owns, to the guest. It returns false if there is no room for a connection.
func (g *Gate) carry(p *published, conn net.Conn) bool {
	if c, ok := conn.(syscall.Conn); !ok || !SpareDescriptor(c) || !g.reserve() {
		return false
	}
	g.wg.Go(func() {
		defer func() { <-g.places }()
		defer g.moved.track(conn)()
		if err := p.connect(p.ctx, conn); err != nil {
			g.log.Debug("forward", "err", err)
		}
	})
	return true
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

// Reset closes a connection so that its peer sees a refusal.
func Reset(conn net.Conn) {
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
func (g *Gate) publishUDP(p *published, file *os.File) error {
	pc, err := net.FilePacketConn(file)
	file.Close()
	if err != nil {
		return err
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		pc.Close()
		return errors.New("it is not a UDP socket")
	}
	ctx, cancel := context.WithCancel(p.ctx)
	context.AfterFunc(ctx, func() { conn.Close() })
	p.copy, p.pause = conn.File, func() { cancel(); conn.Close() }
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	// A port goes from one user to another within a moment, so each datagram is checked.
	admits := func(peer netip.AddrPort) bool { return p.admit == nil || p.admit(peer, local) }
	g.wg.Go(func() {
		var wg sync.WaitGroup
		defer wg.Wait()
		peers := map[netip.AddrPort]*Flow{}
		var mu sync.Mutex
		buf := make([]byte, maxDatagram)
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
				if peer = g.peer(p.GuestPort, func(p []byte) {
					if admits(from) {
						conn.WriteToUDPAddrPort(p, from)
					}
				}); peer == nil {
					continue
				}
				mu.Lock()
				peers[from] = peer
				mu.Unlock()
				wg.Go(func() {
					peer.await(ctx)
					mu.Lock()
					defer mu.Unlock()
					delete(peers, from)
				})
			}
			peer.Touch()
			g.moved.add(n)
			peer.Send(buf[:n])
		}
	})
	return nil
}

// peer opens a socket that talks to a port of the guest, and gives what comes by it to
// deliver. It returns nil when no socket is free. The flow ends when it has been idle.
func (g *Gate) peer(port uint16, deliver func([]byte)) *Flow {
	conn, err := g.guest.Datagrams(port)
	if err != nil {
		return nil
	}
	if c, ok := conn.(syscall.Conn); ok && !SpareDescriptor(c) {
		conn.Close()
		return nil
	}
	from, to := conn.LocalAddr().(*net.UDPAddr), conn.RemoteAddr().(*net.UDPAddr)
	f := &Flow{FlowKey: FlowKey{ForwardedUDP, uint16(from.Port), to.AddrPort()}, over: make(chan struct{})}
	f.End = func() { conn.Close() }
	f.Send = func(p []byte) { conn.Write(p) }
	if !g.flows.Add(f) {
		conn.Close()
		return nil
	}
	g.wg.Go(func() {
		defer close(f.over)
		defer g.flows.Remove(f)
		buf := make([]byte, maxDatagram)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			f.Touch()
			g.moved.add(n)
			deliver(buf[:n])
		}
	})
	return f
}

// await returns when the flow is over. The end of ctx ends it.
func (f *Flow) await(ctx context.Context) {
	defer context.AfterFunc(ctx, f.End)()
	<-f.over
}
