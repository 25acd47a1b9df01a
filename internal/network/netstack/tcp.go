package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"banger/internal/network"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// connect answers a guest's SYN, in a goroutine of its own: the guest's connection
// is there only once ours is, so that it sees refusals as they are.
func (s *Stack) connect(r *tcp.ForwarderRequest) {
	id := r.ID()
	f := &network.Flow{}
	f.FlowKey = network.FlowKey{
		Protocol:    network.TCP,
		Source:      id.RemotePort,
		Destination: addrPort(id.LocalAddress, id.LocalPort),
	}
	ctx, cancel := context.WithTimeout(s.ctx, dialTimeout)
	defer cancel()
	f.End = cancel
	target, names, ok := s.guard.Admit(f.FlowKey)
	f.Names = names
	if !ok || !s.register(f) {
		r.Complete(true)
		return
	}
	d := net.Dialer{KeepAlive: -1}
	conn, err := d.DialContext(ctx, "tcp4", target.String())
	if err == nil && !network.SpareDescriptor(conn.(syscall.Conn)) {
		conn.Close()
		err = syscall.EMFILE
	}
	if err != nil {
		s.flows.Remove(f)
		r.Complete(true)
		return
	}
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	r.Complete(terr != nil)
	if terr != nil {
		s.flows.Remove(f)
		conn.Close()
		return
	}
	s.splice(s.ctx, f, ep, &wq, conn.(*net.TCPConn))
}

// guestSide implements network.Guest, by the stack.
type guestSide struct{ *Stack }

// Join implements network.Guest; ctx comes from the stack's.
func (s guestSide) Join(ctx context.Context, port uint16, conn net.Conn) error {
	half, ok := conn.(halfConn)
	if !ok {
		conn.Close()
		return errors.New("the connection cannot be half-closed")
	}
	var wq waiter.Queue
	ep, terr := s.net.NewEndpoint(tcp.ProtocolNumber, protocolIPv4, &wq)
	if terr != nil {
		conn.Close()
		return errors.New(terr.String())
	}
	err := s.reach(ctx, ep, &wq, port, conn)
	if err != nil {
		ep.Abort()
		network.Reset(conn)
		return err
	}
	local, terr := ep.GetLocalAddress()
	if terr != nil {
		ep.Abort()
		conn.Close()
		return errors.New(terr.String())
	}
	f := &network.Flow{End: func() {}}
	f.FlowKey = network.FlowKey{
		Protocol:    network.ForwardedTCP,
		Source:      local.Port,
		Destination: netip.AddrPortFrom(network.UserGuest, port),
	}
	if !s.flows.Add(f) {
		ep.Abort()
		conn.Close()
		return syscall.EMFILE
	}
	s.splice(ctx, f, ep, &wq, half)
	return nil
}

// reach connects ep to the guest for conn, as long as its peer is there.
func (s *Stack) reach(ctx context.Context, ep tcpip.Endpoint, wq *waiter.Queue, port uint16, conn net.Conn) error {
	ctx, stop := network.ForHandshake(ctx, conn)
	defer stop()
	return s.handshake(ctx, ep, wq, port)
}

func (s *Stack) handshake(ctx context.Context, ep tcpip.Endpoint, wq *waiter.Queue, port uint16) error {
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	terr := ep.Connect(tcpip.FullAddress{NIC: nic, Addr: address(network.UserGuest), Port: port})
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ready:
			terr = ep.LastError()
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return net.ErrClosed
		}
	}
	switch terr.(type) {
	case nil:
		return nil
	case *tcpip.ErrConnectionRefused:
		return syscall.ECONNREFUSED
	}
	return errors.New(terr.String())
}

// halfConn is a stream of the host whose directions end apart.
type halfConn interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// splice carries bytes between the guest's end and the host's until both directions
// have ended. A broken end breaks the other, and the end of ctx both.
func (s *Stack) splice(ctx context.Context, f *network.Flow, ep tcpip.Endpoint, wq *waiter.Queue, conn halfConn) {
	if s.flows.Count(network.TCP)+s.flows.Count(network.ForwardedTCP) > largeFlows {
		ep.SocketOptions().SetReceiveBufferSize(smallBuffer, true)
		ep.SocketOptions().SetSendBufferSize(smallBuffer, true)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &pipe{ctx: ctx, ep: ep, wq: wq, conn: conn, end: &network.Hangup{Conn: conn}, cancel: cancel}
	if !s.flows.SetEnd(f, cancel) { // cut while it connected
		cancel()
	}
	stop := context.AfterFunc(ctx, p.abort)
	var wg sync.WaitGroup
	wg.Go(p.outward)
	wg.Go(p.inward)
	wg.Wait()
	if stop() {
		conn.Close()
		ep.Close()
	}
	s.flows.Remove(f)
}

// pipe is one spliced flow. While nothing moves it holds no buffer.
type pipe struct {
	ctx    context.Context
	ep     tcpip.Endpoint
	wq     *waiter.Queue
	conn   halfConn
	end    *network.Hangup // of conn
	cancel context.CancelFunc
}

// abort resets both ends.
func (p *pipe) abort() {
	if t, ok := p.conn.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	p.conn.Close()
	p.ep.Abort()
}

// outward carries from the guest, straight out of the stack's buffers.
func (p *pipe) outward() {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp)
	p.wq.EventRegister(&entry)
	defer p.wq.EventUnregister(&entry)
	w := &failing{w: p.conn}
	for {
		_, terr := p.ep.Read(w, tcpip.ReadOptions{})
		if w.err != nil {
			p.cancel()
			return
		}
		switch terr.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			select {
			case <-ready:
			case <-p.ctx.Done():
				return
			}
		case *tcpip.ErrClosedForReceive:
			p.end.Stop()
			p.conn.CloseWrite()
			return
		default:
			p.cancel()
			return
		}
	}
}

// failing remembers the error of a writer, which the stack does not pass on.
type failing struct {
	w   io.Writer
	err error
}

func (f *failing) Write(b []byte) (n int, err error) {
	n, f.err = f.w.Write(b)
	return n, f.err
}

const pumpSize = 64 << 10

var pumps = sync.Pool{New: func() any { return new([pumpSize]byte) }}

// inward carries to the guest. It takes a buffer only when there is something to
// read.
func (p *pipe) inward() {
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	p.wq.EventRegister(&entry)
	defer p.wq.EventUnregister(&entry)
	raw, err := p.conn.SyscallConn()
	if err != nil {
		p.cancel()
		return
	}
	for {
		buf, n, err := readReady(raw)
		if buf == nil {
			if err != nil {
				p.cancel()
				return
			}
			p.ep.Shutdown(tcpip.ShutdownWrite)
			if p.end.Wait() {
				p.cancel()
			}
			return
		}
		err = p.write(buf[:n], ready)
		pumps.Put(buf)
		if err != nil {
			p.cancel()
			return
		}
	}
}

// readReady waits for bytes and reads them into a buffer of the pool. No buffer and
// no error is the end.
func readReady(raw syscall.RawConn) (buf *[pumpSize]byte, n int, err error) {
	werr := raw.Read(func(fd uintptr) bool {
		b := pumps.Get().(*[pumpSize]byte)
		for {
			n, err = unix.Read(int(fd), b[:])
			if err != unix.EINTR {
				break
			}
		}
		if err == nil && n > 0 {
			buf = b
			return true
		}
		pumps.Put(b)
		return err != unix.EAGAIN
	})
	if werr != nil {
		return nil, 0, werr
	}
	return buf, n, err
}

func (p *pipe) write(b []byte, ready <-chan struct{}) error {
	payload := &sliceReader{b}
	for payload.Len() > 0 {
		_, terr := p.ep.Write(payload, tcpip.WriteOptions{})
		switch terr.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			select {
			case <-ready:
			case <-p.ctx.Done():
				return p.ctx.Err()
			}
		default:
			return errors.New(terr.String())
		}
	}
	return nil
}

// sliceReader is a tcpip.Payloader.
type sliceReader struct{ b []byte }

func (r *sliceReader) Len() int { return len(r.b) }

func (r *sliceReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}
