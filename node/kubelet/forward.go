package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"banger"
)

// A port on which a Pod begins to listen is open on the VM's address a moment later, when the guest has told it.
const (
	lateness = 3 * time.Second
	pause    = 100 * time.Millisecond
)

// Forward connects a stream with a port of a Pod.
func (k Kubelet) Forward(ctx context.Context, namespace, name string, port int32, stream io.ReadWriteCloser) error {
	id, err := k.Pods.VM(namespace, name)
	if err != nil {
		return err
	}
	vm, err := k.Daemon.Get(ctx, id)
	if err != nil {
		return err
	}
	conn, err := dial(ctx, net.JoinHostPort(vm.Address, fmt.Sprint(port)))
	if err != nil {
		return banger.Errorf(banger.CodeUnavailable, "port %d of Pod %s does not answer: %w", port, name,
			banger.Cause(err))
	}
	defer conn.Close()
	defer stream.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	go func() { // ends with the user's side, or with stream
		io.Copy(conn, stream)
		conn.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(stream, conn)
	return nil
}

// dial connects to a port that may have been opened just now.
func dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	for begun := time.Now(); ; {
		conn, err := d.DialContext(ctx, "tcp", address)
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(begun) > lateness {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}
