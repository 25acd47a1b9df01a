package wake

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/network"
)

// port is a listening socket of a suspended VM.
type port struct {
	banger.Forward
	file  *os.File
	admit network.Admit
}

// newPort returns a port with a copy of file, which must be a socket that listens where f says.
func newPort(f banger.Forward, file *os.File, admit network.Admit) (*port, error) {
	if got, err := placeOf(file); err != nil || got != (place{f.Protocol, f.Host()}) {
		return nil, errors.Join(err, errors.New("the socket is not the one of "+f.String()))
	}
	own, err := duplicate(file)
	if err != nil {
		return nil, err
	}
	return &port{f, own, admit}, nil
}

// place is where a socket listens.
type place struct {
	protocol string
	at       netip.AddrPort
}

// placeOf returns where a socket really listens.
func placeOf(file *os.File) (p place, err error) {
	cerr := control(file, func(fd int) {
		var kind, listens int
		if kind, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
			return
		}
		switch kind {
		case unix.SOCK_STREAM:
			if listens, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil {
				return
			}
			if p.protocol = "tcp"; listens == 0 {
				err = errors.New("it does not listen")
				return
			}
		case unix.SOCK_DGRAM:
			p.protocol = "udp"
		}
		var sa unix.Sockaddr
		if sa, err = unix.Getsockname(fd); err == nil {
			p.at = network.AddrPort(sa)
		}
	})
	return p, errors.Join(cerr, err)
}

func control(file *os.File, f func(fd int)) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) })
}

// duplicate returns a second descriptor of a file. It leaves the first one as it is.
func duplicate(file *os.File) (own *os.File, err error) {
	cerr := control(file, func(fd int) {
		var n int
		if n, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.SetNonblock(n, true) // so the runtime waits for it
			own = os.NewFile(uintptr(n), file.Name())
		}
	})
	if err = errors.Join(cerr, err); err != nil {
		own.Close()
		return nil, err
	}
	return own, nil
}

// ready makes the port one that can be awaited, after another process may have changed its socket.
func (p *port) ready() {
	control(p.file, func(fd int) { unix.SetNonblock(fd, true) })
	p.file.SetReadDeadline(time.Time{})
}

// await returns true when somebody is at the port, or false when its deadline has passed.
func (p *port) await() bool {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return false
	}
	return raw.Read(func(fd uintptr) bool {
		events := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(events, 0)
		return n > 0 || err != nil && err != unix.EINTR
	}) == nil
}

// errNobody means that there was no connection, or one that was not admitted.
var errNobody = errors.New("there is no connection")

// accept accepts one connection, and resets it unless it is admitted.
func (p *port) accept() (conn *os.File, err error) {
	cerr := control(p.file, func(fd int) {
		var n int
		var from unix.Sockaddr
		n, from, err = unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			return
		}
		conn = os.NewFile(uintptr(n), p.String())
		if !network.SpareDescriptor(conn) || p.admit != nil && !p.admit(network.AddrPort(from), p.Host()) {
			reset(conn)
			conn, err = nil, errNobody
		}
	})
	switch {
	case err == unix.EAGAIN || err == unix.ECONNABORTED || err == unix.EINTR:
		return nil, errNobody
	case cerr != nil:
		return nil, cerr
	}
	return conn, err
}

// look returns true if the next datagram is one that is admitted, and drops it if not.
func (p *port) look() (admitted bool) {
	control(p.file, func(fd int) {
		var b [1]byte
		_, from, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err != nil:
		case p.admit == nil || p.admit(network.AddrPort(from), p.Host()):
			admitted = true
		default:
			unix.Recvfrom(fd, b[:], unix.MSG_DONTWAIT)
		}
	})
	return admitted
}

// drop drops the datagrams that wait in the socket.
func (p *port) drop() {
	if p.Protocol != "udp" {
		return
	}
	const most = 4096 // more may come all the time
	control(p.file, func(fd int) {
		var b [1]byte
		for range most {
			if _, _, err := unix.Recvfrom(fd, b[:], unix.MSG_DONTWAIT); err != nil {
				return
			}
		}
	})
}

// reset closes a connection so that its peer sees a refusal.
func reset(conn *os.File) {
	defer conn.Close()
	c, err := net.FileConn(conn)
	if err == nil {
		conn.Close()
		network.Reset(c)
	}
}
