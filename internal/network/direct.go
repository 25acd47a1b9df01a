package network

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// direct reaches a guest at its own address, by the host's kernel.
type direct struct {
	addr netip.Addr
	gate *Gate
}

// NewGate returns a gate to a guest that the host's kernel reaches at addr. Close
// ends it.
func NewGate(addr netip.Addr, log *slog.Logger) *Gate {
	d := &direct{addr: addr}
	d.gate = newGate(d, log)
	d.gate.wg.Go(func() { d.gate.expire(func(time.Time) {}) })
	return d.gate
}

// Close ends all forwards and what came by them, and returns when all is over.
func (g *Gate) Close() {
	g.cancel()
	g.flows.closeAll()
	g.wg.Wait()
}

func (d *direct) dial(ctx context.Context, port uint16) (net.Conn, error) {
	dialer := net.Dialer{KeepAlive: -1}
	return dialer.DialContext(ctx, "tcp4", netip.AddrPortFrom(d.addr, port).String())
}

func (d *direct) datagrams(port uint16) (net.Conn, error) {
	return net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(d.addr, port)))
}

func (d *direct) join(ctx context.Context, port uint16, conn net.Conn) error {
	near, ok := conn.(*net.TCPConn)
	if !ok {
		conn.Close()
		return errors.New("the connection is not one of TCP")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	other, err := d.reach(ctx, port, near)
	if err != nil {
		reset(near)
		return err
	}
	far := other.(*net.TCPConn)
	f := &flow{flowKey: flowKey{forwarded, endOf(far.LocalAddr()).Port(), netip.AddrPortFrom(d.addr, port)}, end: cancel}
	if !d.gate.flows.add(f) {
		reset(near)
		reset(far)
		return syscall.EMFILE
	}
	defer d.gate.flows.remove(f)
	cut := func() { reset(near); reset(far) }
	stop := context.AfterFunc(ctx, cut)
	var wg sync.WaitGroup
	nearEnd, farEnd := &Hangup{Conn: near}, &Hangup{Conn: far}
	pump := func(to, from *net.TCPConn, toEnd, fromEnd *Hangup) {
		if _, err := io.Copy(to, from); err != nil {
			cancel()
			return
		}
		toEnd.Stop()
		to.CloseWrite()
		if fromEnd.Wait() {
			cancel()
		}
	}
	wg.Go(func() { pump(far, near, farEnd, nearEnd) })
	wg.Go(func() { pump(near, far, nearEnd, farEnd) })
	wg.Wait()
	if stop() {
		near.Close()
		far.Close()
	}
	return nil
}

// reach dials the guest for near, as long as its peer is there.
func (d *direct) reach(ctx context.Context, port uint16, near *net.TCPConn) (net.Conn, error) {
	ctx, stop := WithPeer(ctx, near)
	defer stop()
	ctx, done := context.WithTimeout(ctx, guestTime)
	defer done()
	return d.dial(ctx, port)
}
