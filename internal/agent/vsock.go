package agent

import (
	"fmt"
	"net"

	"github.com/mdlayher/vsock"

	"banger/internal/accept"
	"banger/internal/guest"
)

// maxConnections bounds the host's streams. A shim opens fewer.
const maxConnections = 2048

// listenVsock listens on a port of the guest's vsock.
func listenVsock(port uint32) (net.Listener, error) {
	ln, err := vsock.ListenContextID(anyContext, port, nil)
	if err != nil {
		return nil, fmt.Errorf("listening on vsock: %w", err)
	}
	return accept.Retry(ln), nil
}

// anyContext stands for every context id of this guest (vsock(7), VMADDR_CID_ANY).
const anyContext = 1<<32 - 1

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
