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

// direct is a Guest that the host's kernel reaches at an address of its own.
type direct struct {
	addr  netip.Addr
	flows *Flows
}

// NewDirectGate returns a gate to a guest that the host's kernel reaches at addr. Close
// ends it.
func NewDirectGate(addr netip.Addr, log *slog.Logger) *Gate {
	d := &direct{addr: addr, flows: &Flows{}}
	g := NewGate(context.Background(), d, d.flows, log)
	g.wg.Go(func() { d.flows.Expire(g.ctx, func(time.Time) {}) })
	return g
}

// Dial implements Guest.
func (d *direct) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	dialer := net.Dialer{KeepAlive: -1}
	return dialer.DialContext(ctx, "tcp4", netip.AddrPortFrom(d.addr, port).String())
}

// Datagrams implements Guest.
func (d *direct) Datagrams(port uint16) (net.Conn, error) {
	return net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(d.addr, port)))
}

// Join implements Guest.
func (d *direct) Join(ctx context.Context, port uint16, conn net.Conn) error {
	near, ok := conn.(*net.TCPConn)
	if !ok {
		conn.Close()
		return errors.New("the connection is not one of TCP")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	other, err := d.reach(ctx, port, near)
	if err != nil {
		Reset(near)
		return err
	}
	far := other.(*net.TCPConn)
	f := &Flow{End: cancel}
	f.FlowKey = FlowKey{ForwardedTCP, endOf(far.LocalAddr()).Port(), netip.AddrPortFrom(d.addr, port)}
	if !d.flows.Add(f) {
		Reset(near)
		Reset(far)
		return syscall.EMFILE
	}
	defer d.flows.Remove(f)
	cut := func() { Reset(near); Reset(far) }
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
	ctx, stop := ForHandshake(ctx, near)
	defer stop()
	return d.Dial(ctx, port)
}
