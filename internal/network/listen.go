package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"banger"
)

// Listen opens the host's end of a forward. A port that somebody has is an error
// that says who, as far as the kernel tells us.
func Listen(f banger.Forward) (*os.File, error) {
	var file *os.File
	var err error
	if f.Protocol == "udp" {
		var conn *net.UDPConn
		if conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(f.Host())); err == nil {
			defer conn.Close()
			file, err = conn.File()
		}
	} else {
		var ln *net.TCPListener
		if ln, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(f.Host())); err == nil {
			defer ln.Close()
			file, err = ln.File()
		}
	}
	switch {
	case err == nil:
		return file, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, banger.Errorf(banger.CodeConflict, "port %s/%s of the host is taken by %s", f.Host(), f.Protocol, holder(f.Protocol, f.Host())).
			WithHint("choose another, or 0 for any that is free")
	case errors.Is(err, syscall.EACCES):
		return nil, banger.Errorf(banger.CodeDenied, "port %s/%s of the host is for root only", f.Host(), f.Protocol).
			WithHint("choose one from 1024 on, or allow it: sysctl net.ipv4.ip_unprivileged_port_start=%d", f.HostPort)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, banger.Errorf(banger.CodeInvalid, "%s is no address of this host", f.HostIP)
	}
	return nil, banger.Errorf(banger.CodeUnavailable, "cannot listen on %s/%s: %w", f.Host(), f.Protocol, err)
}

// Bound returns where a file that Listen opened really listens.
func Bound(f *os.File) (netip.AddrPort, error) {
	sa, err := syscall.Getsockname(int(f.Fd()))
	if err != nil {
		return netip.AddrPort{}, err
	}
	in, ok := sa.(*syscall.SockaddrInet4)
	if !ok {
		return netip.AddrPort{}, errors.New("it is no IPv4 socket")
	}
	return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port)), nil
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
// to the forward's port of the guest when connect is nil. admit may turn a
// connection away by its two ends.
func (s *Stack) Publish(f banger.Forward, file *os.File, connect Connect, admit func(from, to netip.AddrPort) bool) error {
	ctx, cancel := context.WithCancel(s.ctx)
	p := &published{Forward: f, stop: cancel}
	s.publishMu.Lock()
	defer s.publishMu.Unlock()
	if s.forwards[f] != nil {
		cancel()
		file.Close()
		return fmt.Errorf("the forward %s exists already", f)
	}
	var err error
	if f.Protocol == "udp" {
		err = s.publishUDP(ctx, f, file)
	} else {
		if connect == nil {
			connect = func(ctx context.Context, conn net.Conn) error { return s.Dial(ctx, f.GuestPort, conn) }
		}
		err = s.publishTCP(ctx, file, connect, admit)
	}
	if err != nil {
		cancel()
		return err
	}
	if s.forwards == nil {
		s.forwards = map[banger.Forward]*published{}
	}
	s.forwards[f] = p
	return nil
}

// Unpublish ends a forward and the connections that came by it, and reports whether
// there was one.
func (s *Stack) Unpublish(f banger.Forward) bool {
	s.publishMu.Lock()
	defer s.publishMu.Unlock()
	p := s.forwards[f]
	if p == nil {
		return false
	}
	delete(s.forwards, f)
	p.stop()
	return true
}

func (s *Stack) publishTCP(ctx context.Context, file *os.File, connect Connect, admit func(from, to netip.AddrPort) bool) error {
	ln, err := net.FileListener(file)
	file.Close()
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { ln.Close() })
	s.wg.Go(func() {
		defer ln.Close()
		for {
			conn, err := ln.Accept()
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ECONNABORTED) {
				continue
			}
			if err != nil {
				return
			}
			from, to := endOf(conn.RemoteAddr()), endOf(conn.LocalAddr())
			if admit != nil && !admit(from, to) {
				reset(conn)
				continue
			}
			s.wg.Go(func() {
				if err := connect(ctx, conn); err != nil {
					s.log.Debug("forward", "err", err)
				}
			})
		}
	})
	return nil
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

// publishUDP gives each peer of the host's socket a socket of its own in the stack,
// so that the guest's answers find back.
func (s *Stack) publishUDP(ctx context.Context, f banger.Forward, file *os.File) error {
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
	s.wg.Go(func() {
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
			mu.Lock()
			peer := peers[from]
			mu.Unlock()
			if peer == nil {
				if peer = s.udpPeer(f.GuestPort, func(p []byte) { conn.WriteToUDPAddrPort(p, from) }); peer == nil {
					continue
				}
				mu.Lock()
				peers[from] = peer
				mu.Unlock()
				context.AfterFunc(ctx, peer.end)
				wg.Go(func() {
					<-peer.over
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

// udpPeer opens a socket in the stack that talks to a port of the guest. It ends
// when it has been idle, like all flows of UDP.
func (s *Stack) udpPeer(port uint16, deliver func([]byte)) *flow {
	local := tcpip.FullAddress{NIC: nic, Addr: address(UserGateway)}
	to := tcpip.FullAddress{NIC: nic, Addr: address(UserGuest), Port: port}
	conn, err := gonet.DialUDP(s.net, &local, &to, protocolIPv4)
	if err != nil {
		return nil
	}
	from := conn.LocalAddr().(*net.UDPAddr)
	f := &flow{flowKey: flowKey{forwardedUDP, uint16(from.Port), netip.AddrPortFrom(UserGuest, port)}, over: make(chan struct{})}
	f.end = func() { conn.Close() }
	f.send = func(p []byte) { conn.Write(p) }
	if !s.flows.add(f) {
		conn.Close()
		return nil
	}
	s.wg.Go(func() {
		defer close(f.over)
		defer s.flows.remove(f)
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

// DialGuest connects to a TCP port of the guest, as from the gateway.
func (s *Stack) DialGuest(ctx context.Context, port uint16) (net.Conn, error) {
	return gonet.DialContextTCP(ctx, s.net, tcpip.FullAddress{NIC: nic, Addr: address(UserGuest), Port: port}, protocolIPv4)
}

// OwnedBy returns a check that turns away TCP connections of this host that another
// user than uid or root has made. What the kernel does not tell is let through.
func OwnedBy(uid uint32) func(from, to netip.AddrPort) bool {
	return func(from, to netip.AddrPort) bool {
		socket, err := netlink.SocketGet(net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to))
		return err != nil || socket.UID == uid || socket.UID == 0
	}
}
