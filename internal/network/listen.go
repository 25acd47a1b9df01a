package network

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
)

// Listen opens the host's end of a forward. If the port is taken, the error names the program that
// has it, if the kernel shows it.
func Listen(f banger.Forward) (*os.File, error) {
	var file *os.File
	var err error
	family := "4"
	if f.Host().Addr().Is6() {
		family = "6" // and not also IPv4, even for [::]
	}
	if f.Protocol == "udp" {
		var conn *net.UDPConn
		if conn, err = net.ListenUDP("udp"+family, net.UDPAddrFromAddrPort(f.Host())); err == nil {
			defer conn.Close()
			file, err = conn.File()
		}
	} else {
		var ln *net.TCPListener
		if ln, err = net.ListenTCP("tcp"+family, net.TCPAddrFromAddrPort(f.Host())); err == nil {
			defer ln.Close()
			file, err = ln.File()
		}
	}
	switch {
	case err == nil:
		return file, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, banger.Errorf(banger.CodeConflict, "port %s/%s of the host is taken by %s",
			f.Host(), f.Protocol, holder(f.Protocol, f.Host())).
			WithHint("choose another, or 0 for any that is free")
	case errors.Is(err, syscall.EACCES):
		return nil, banger.Errorf(banger.CodeDenied, "port %s/%s of the host is for root only", f.Host(), f.Protocol).
			WithHint("choose one from 1024 on, or allow it: sysctl net.ipv4.ip_unprivileged_port_start=%d", f.HostPort)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, banger.Errorf(banger.CodeInvalid, "%s is not an address of this host", f.HostIP)
	}
	return nil, banger.Errorf(banger.CodeUnavailable, "cannot listen on %s/%s: %w", f.Host(), f.Protocol, err)
}

// Bound returns where a file that Listen opened really listens.
func Bound(f *os.File) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(int(f.Fd()))
	if err != nil {
		return netip.AddrPort{}, err
	}
	at := AddrPort(sa)
	if !at.IsValid() {
		return at, errors.New("it is not a socket of IP")
	}
	return at, nil
}

// AddrPort returns an address of IP. The result is not valid for another one.
func AddrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
