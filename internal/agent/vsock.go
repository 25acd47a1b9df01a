package agent

import (
	"fmt"
	"net"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// maxConnections bounds the host's streams. A shim opens fewer.
const maxConnections = 2048

// listenVsock listens on a port of the guest's vsock.
func listenVsock(port uint32) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("listening on vsock: %w", err)
	}
	if err = unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}); err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listening on vsock: %w", err)
	}
	return fd, nil
}

// serveVsock serves each connection of the host as a stream. It closes those of other
// peers: they are processes of the guest, which come by the kernel's loopback.
func serveVsock(ln net.Listener, s *server) error {
	places := make(chan struct{}, maxConnections)
	for {
		conn, err := ln.Accept()
		if err != nil {
			return fmt.Errorf("listening to the host: %w", err)
		}
		if peer, ok := conn.RemoteAddr().(*vsock.Addr); !ok || peer.ContextID != vsock.Host {
			conn.Close()
			continue
		}
		select {
		case places <- struct{}{}:
			go func() { // ends with the connection, which handle closes
				defer func() { <-places }()
				s.handle(guest.AgentPort, conn)
			}()
		default:
			conn.Close()
		}
	}
}
