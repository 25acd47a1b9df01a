package session

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
)

// Join connects stdin and stdout with conn until the far side has ended. It owns conn, and watches the VM meanwhile.
func Join(ctx context.Context, conn net.Conn, stdio Stdio, watch *Silence) error {
	defer conn.Close()
	defer watch.Start(ctx)()
	go func() { // ends with the process; a read of stdin cannot be cut short
		_, err := io.Copy(conn, stdio.In)
		half, ok := conn.(interface{ CloseWrite() error })
		if err != nil || !ok || half.CloseWrite() != nil {
			conn.Close()
		}
	}()
	_, err := io.Copy(stdio.Out, hearing{conn, watch})
	if errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

// hearing reads from a VM and notes when data comes.
type hearing struct {
	r       io.Reader
	silence *Silence
}

func (h hearing) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if n > 0 {
		h.silence.Hear()
	}
	return n, err
}
