package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// OwnedBy returns a check for senders to a port of this host. The check returns true if the socket
// at from, which sent to the port at to, belongs to user uid or to root. It returns false if the
// kernel does not know the owner, because the sender has closed the socket or the kernel lacks
// sock_diag(7).
func OwnedBy(protocol string, uid uint32) Admit {
	return func(from, to netip.AddrPort) bool {
		owner, err := ownerOf(protocol, from, to)
		return err == nil && (owner == uid || owner == 0)
	}
}

// TellsOwners returns an error if the kernel does not say whose the sockets of a protocol are.
func TellsOwners(protocol string) error {
	var own, peer netip.AddrPort
	switch protocol {
	case "udp":
		conn, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}) // connecting sends nothing
		if err != nil {
			return err
		}
		defer conn.Close()
		own, peer = conn.LocalAddr().(*net.UDPAddr).AddrPort(), conn.RemoteAddr().(*net.UDPAddr).AddrPort()
	default:
		ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		defer ln.Close()
		conn, err := net.DialTCP("tcp4", nil, ln.Addr().(*net.TCPAddr))
		if err != nil {
			return err
		}
		defer conn.Close()
		own, peer = endOf(conn.LocalAddr()), endOf(conn.RemoteAddr())
	}
	owner, err := ownerOf(protocol, own, peer)
	if err == nil && owner != uint32(os.Geteuid()) {
		err = fmt.Errorf("it says user %d of a socket of user %d", owner, os.Geteuid())
	}
	return err
}

// errNoOwner means that there is no socket at the address any more.
var errNoOwner = errors.New("no process has the socket")

// ownerOf returns the user id of the IPv4 socket that is bound to from and sends to to.
func ownerOf(protocol string, from, to netip.AddrPort) (uint32, error) {
	from, to = netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if !from.Addr().Is4() || !to.Addr().Is4() {
		return 0, errors.New("it is not an IPv4 socket")
	}
	if protocol == "udp" {
		from, to = to, from // the kernel takes the ends of a packet that the socket would get (udp_diag.c)
	}
	answer, err := askDiag(diagRequest(protocol, from, to))
	if err != nil {
		return 0, err
	}
	if protocol == "udp" {
		from, to = to, from
	}
	return readOwner(protocol, from, to, answer)
}

// Offsets in struct inet_diag_req_v2 and struct inet_diag_msg, and in struct inet_diag_sockid, which both hold
// (linux/inet_diag.h).
const (
	diagRequestSize = 56
	diagRequestID   = 8
	diagMessageSize = 72
	diagMessageID   = 4
	diagUID         = 64
	diagInode       = 68
	diagSource      = 4
	diagTarget      = 20
	diagCookie      = 40
)

// diagRequest asks for one socket by both ends (sock_diag(7)).
func diagRequest(protocol string, source, target netip.AddrPort) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN+diagRequestSize)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	r := b[unix.NLMSG_HDRLEN:]
	r[0], r[1] = unix.AF_INET, unix.IPPROTO_TCP
	if protocol == "udp" {
		r[1] = unix.IPPROTO_UDP
	}
	binary.NativeEndian.PutUint32(r[4:], ^uint32(0)) // sockets in any state
	id := r[diagRequestID:]
	binary.BigEndian.PutUint16(id, source.Port())
	binary.BigEndian.PutUint16(id[2:], target.Port())
	src, dst := source.Addr().As4(), target.Addr().As4()
	copy(id[diagSource:], src[:])
	copy(id[diagTarget:], dst[:])
	for i := range 8 {
		id[diagCookie+i] = 0xff // INET_DIAG_NOCOOKIE
	}
	return b
}

// askDiag sends one request to the kernel and returns the payload of its answer.
func askDiag(request []byte) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT) // the kernel has answered when sendto returns
	if err != nil {
		return nil, os.NewSyscallError("recvfrom", err)
	}
	messages, err := syscall.ParseNetlinkMessage(buf[:n])
	if err != nil || len(messages) == 0 {
		return nil, errors.New("the kernel's answer cannot be read")
	}
	m := messages[0]
	switch {
	case m.Header.Type == unix.SOCK_DIAG_BY_FAMILY && len(m.Data) >= diagMessageSize:
		return m.Data, nil
	case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
		if errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Data))); errno != syscall.ENOENT {
			return nil, os.NewSyscallError("sock_diag", errno)
		}
	}
	return nil, errNoOwner
}

// readOwner reads the user of the requested socket. A socket that its process has closed has no
// inode any more; older kernels then report user 0 for any user.
func readOwner(protocol string, from, to netip.AddrPort, answer []byte) (uint32, error) {
	id := answer[diagMessageID:]
	port, peer := binary.BigEndian.Uint16(id), binary.BigEndian.Uint16(id[2:])
	uid, inode := binary.NativeEndian.Uint32(answer[diagUID:]), binary.NativeEndian.Uint32(answer[diagInode:])
	if uid == 0 && inode == 0 || port != from.Port() || peer != to.Port() && !(protocol == "udp" && peer == 0) {
		return 0, errNoOwner
	}
	return uid, nil
}
