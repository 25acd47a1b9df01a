package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"banger/internal/network"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const protocolIPv4 = ipv4.ProtocolNumber

// datagram answers a guest's UDP packet for which the stack has no endpoint. If it returns false,
// the guest gets the error that the port is unreachable.
func (s *Stack) datagram(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	key := network.FlowKey{
		Protocol:    network.UDP,
		Source:      id.RemotePort,
		Destination: addrPort(id.LocalAddress, id.LocalPort),
	}
	f := s.flows.Get(key)
	if f == nil {
		target, names, ok := s.guard.Admit(key)
		if !ok {
			return false
		}
		f = &network.Flow{FlowKey: key, Names: names}
		conn, err := dialDatagrams(target)
		if err != nil {
			return false
		}
		deliver := func(p []byte) { s.sendUDP(key.Destination, key.Source, p) }
		if !s.carry(f, conn, deliver, func(err error) { s.tellClosed(f, err) }) {
			return false
		}
	}
	f.Touch()
	f.Send(pkt.Data().AsRange().ToSlice())
	return true
}

// dialDatagrams opens a socket that the kernel does not let send to a broadcast address, whichever
// networks the host joins later (socket(7), SO_BROADCAST, which Go sets).
func dialDatagrams(to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		cerr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 0)
		})
		return errors.Join(cerr, err)
	}}
	return d.Dial("udp4", to.String())
}

// carry registers a datagram flow on the host's socket conn, which it owns, and passes every
// datagram of it to deliver. Unless failed is nil, it gets the socket's errors about earlier
// datagrams. The socket still works after them.
func (s *Stack) carry(f *network.Flow, conn net.Conn, deliver func([]byte), failed func(error)) bool {
	tell := func(err error) bool {
		errno, ok := errors.AsType[unix.Errno](err)
		if _, known := closedCodes[errno]; !ok || !known || failed == nil {
			return false
		}
		failed(err)
		return true
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil || !network.SpareDescriptor(conn.(syscall.Conn)) {
		conn.Close()
		return false
	}
	f.End = func() { conn.Close() }
	f.Send = func(p []byte) {
		// A full socket loses the datagram, as a full link does. If the socket has an error about an
		// earlier datagram, the call returns that error and does not send this one.
		raw.Write(func(fd uintptr) bool {
			if _, err := unix.Write(int(fd), p); tell(err) {
				unix.Write(int(fd), p)
			}
			return true
		})
	}
	if !s.register(f) {
		conn.Close()
		return false
	}
	s.wg.Go(func() {
		defer s.flows.Remove(f)
		for {
			buf, n, err := readDatagram(raw)
			if tell(err) {
				continue
			}
			if err != nil {
				return
			}
			f.Touch()
			deliver(buf[:n])
			pumps.Put(buf)
		}
	})
	return true
}

// readDatagram waits for a datagram and reads it into a buffer of the pool.
func readDatagram(raw syscall.RawConn) (buf *[pumpSize]byte, n int, err error) {
	werr := raw.Read(func(fd uintptr) bool {
		b := pumps.Get().(*[pumpSize]byte)
		n, err = unix.Read(int(fd), b[:])
		if err == unix.EAGAIN || err == unix.EINTR {
			pumps.Put(b)
			return false
		}
		if err != nil {
			pumps.Put(b)
			return true
		}
		buf = b
		return true
	})
	if werr != nil {
		return nil, 0, werr
	}
	return buf, n, err
}

// sendUDP sends a datagram to the guest's port, as from the outside.
func (s *Stack) sendUDP(from netip.AddrPort, port uint16, payload []byte) {
	total := header.UDPMinimumSize + len(payload)
	if total > 65535-header.IPv4MinimumSize {
		return
	}
	src, dst := address(from.Addr()), address(network.UserGuest)
	udpHeader := make(header.UDP, header.UDPMinimumSize)
	udpHeader.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: port, Length: uint16(total)})
	sum := header.PseudoHeaderChecksum(udp.ProtocolNumber, src, dst, uint16(total))
	udpHeader.SetChecksum(^udpHeader.CalculateChecksum(checksum.Checksum(payload, sum)))
	s.sendIP(from.Addr(), udp.ProtocolNumber, udpHeader, payload)
}

// sendIP sends one packet to the guest; the stack cuts it when it is too large.
func (s *Stack) sendIP(from netip.Addr, proto tcpip.TransportProtocolNumber, head, payload []byte) {
	route, err := s.net.FindRoute(nic, address(from), address(network.UserGuest), protocolIPv4, false)
	if err != nil {
		return
	}
	defer route.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(route.MaxHeaderLength()) + len(head), Payload: buffer.MakeWithData(payload)})
	defer pkt.DecRef()
	copy(pkt.TransportHeader().Push(len(head)), head)
	pkt.TransportProtocolNumber = proto
	route.WritePacket(stack.NetworkHeaderParams{Protocol: proto, TTL: 64}, pkt)
}

// echo answers the guest's ICMP. Echo requests go out through a ping socket of the
// host (icmp(7)), which rewrites the identifier; everything else is ignored.
func (s *Stack) echo(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	icmp := header.ICMPv4(pkt.TransportHeader().Slice())
	to := addrPort(id.LocalAddress, 0)
	if to.Addr() == network.UserGateway || to.Addr() == network.UserDNS || len(icmp) < header.ICMPv4MinimumSize ||
		icmp.Type() != header.ICMPv4Echo {
		return false // the stack answers for its own addresses
	}
	message := append(append([]byte(nil), icmp...), pkt.Data().AsRange().ToSlice()...)
	key := network.FlowKey{Protocol: network.ICMP, Source: icmp.Ident(), Destination: to}
	f := s.flows.Get(key)
	if f == nil {
		_, names, ok := s.guard.Admit(key)
		if !ok {
			s.unreachable(to.Addr(), pkt)
			return true
		}
		f = &network.Flow{FlowKey: key, Names: names}
		conn, err := pingSocket(to.Addr())
		if err != nil {
			s.log.Debug("no ping socket", "err", err)
			s.unreachable(to.Addr(), pkt)
			return true
		}
		if !s.carry(f, conn, func(p []byte) { s.sendEcho(f, p) }, nil) {
			return true
		}
	}
	f.Touch()
	f.Send(message)
	return true
}

// sendEcho sends an answer with the identifier that the guest has used.
func (s *Stack) sendEcho(f *network.Flow, p []byte) {
	if len(p) < header.ICMPv4MinimumSize || header.ICMPv4(p).Type() != header.ICMPv4EchoReply {
		return
	}
	icmp := header.ICMPv4(p)
	icmp.SetIdent(f.Source)
	icmp.SetChecksum(0)
	icmp.SetChecksum(^checksum.Checksum(p, 0))
	head, payload := p[:header.ICMPv4MinimumSize], p[header.ICMPv4MinimumSize:]
	s.sendIP(f.Destination.Addr(), header.ICMPv4ProtocolNumber, head, payload)
}

// unreachable informs the guest that an administrator refuses pkt (RFC 1812, 5.2.7.1, code 13), so
// the guest need not wait.
func (s *Stack) unreachable(from netip.Addr, pkt *stack.PacketBuffer) {
	head := make(header.ICMPv4, header.ICMPv4MinimumSize)
	head.SetType(header.ICMPv4DstUnreachable)
	head.SetCode(header.ICMPv4AdminProhibited)
	quoted := append(append([]byte(nil), pkt.NetworkHeader().Slice()...), pkt.TransportHeader().Slice()...)
	head.SetChecksum(^checksum.Checksum(quoted, checksum.Checksum(head, 0)))
	s.sendIP(network.UserGateway, header.ICMPv4ProtocolNumber, head, quoted)
}

// closedCodes are the errors by which a host's socket reports that a datagram was not delivered
// (net/ipv4/icmp.c, icmp_err_convert), with the codes that the guest's kernel gets for them.
var closedCodes = map[unix.Errno]header.ICMPv4Code{
	unix.ECONNREFUSED: header.ICMPv4PortUnreachable,
	unix.EHOSTUNREACH: header.ICMPv4HostUnreachable,
	unix.EHOSTDOWN:    header.ICMPv4HostUnreachable,
	unix.ENETUNREACH:  header.ICMPv4NetUnreachable,
	unix.ENONET:       header.ICMPv4NetUnreachable,
}

// tellClosed informs the guest that a datagram of the flow was not delivered, as the destination
// would, within the stack's limit of such messages. It quotes a datagram of the flow without
// content, because a kernel looks only at the header (RFC 792).
func (s *Stack) tellClosed(f *network.Flow, err error) {
	errno, _ := errors.AsType[unix.Errno](err)
	code, ok := closedCodes[errno]
	if !ok || !s.net.AllowICMPMessage() {
		return
	}
	head := make(header.ICMPv4, header.ICMPv4MinimumSize)
	head.SetType(header.ICMPv4DstUnreachable)
	head.SetCode(code)
	quoted := make([]byte, header.IPv4MinimumSize+header.UDPMinimumSize)
	ip := header.IPv4(quoted)
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(quoted)), TTL: 64, Protocol: uint8(udp.ProtocolNumber),
		SrcAddr: address(network.UserGuest), DstAddr: address(f.Destination.Addr())})
	ip.SetChecksum(^ip.CalculateChecksum())
	header.UDP(quoted[header.IPv4MinimumSize:]).Encode(&header.UDPFields{
		SrcPort: f.Source,
		DstPort: f.Destination.Port(),
		Length:  header.UDPMinimumSize,
	})
	head.SetChecksum(^checksum.Checksum(quoted, checksum.Checksum(head, 0)))
	s.sendIP(f.Destination.Addr(), header.ICMPv4ProtocolNumber, head, quoted)
}

// pingSocket makes a connected ICMP echo socket, for which the host's
// net.ipv4.ping_group_range must hold our group.
func pingSocket(to netip.Addr) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.As4()}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	f := os.NewFile(uintptr(fd), "ping")
	defer f.Close()
	return net.FileConn(f)
}

// Datagrams implements network.Guest, by a socket in the stack.
func (s guestSide) Datagrams(port uint16) (net.Conn, error) {
	local := tcpip.FullAddress{NIC: nic, Addr: address(network.UserGateway)}
	to := tcpip.FullAddress{NIC: nic, Addr: address(network.UserGuest), Port: port}
	return gonet.DialUDP(s.net, &local, &to, protocolIPv4)
}

// Dial implements network.Guest.
func (s guestSide) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	to := tcpip.FullAddress{NIC: nic, Addr: address(network.UserGuest), Port: port}
	return gonet.DialContextTCP(ctx, s.net, to, protocolIPv4)
}
