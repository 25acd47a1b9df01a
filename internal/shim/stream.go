package shim

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
)

// Stream is one to the guest's agent. Until it is first read from, it can be given away.
type Stream struct {
	net.Conn
	conn *net.UnixConn // the same
	mu   sync.Mutex
	kept bool // the shim knows that it is not given away
}

// Offer opens a stream to a port of the guest's agent, as Dial does, that can be given
// to another. One of a shim that is older than that is like one of Dial.
func (c Client) Offer(ctx context.Context, port uint32) (*Stream, error) {
	conn, err := c.dial(ctx, CallOffer, port)
	if err == errUnknownCall {
		conn, err = c.dial(ctx, CallConnect, port)
		return &Stream{Conn: conn, conn: conn, kept: true}, err
	}
	return &Stream{Conn: conn, conn: conn}, err
}

// Give lets the shim speak to client in the place of this end, which is closed. What was
// written here comes first. Client stays the caller's, who closes it; the shim has it for
// itself, so it lives on when the caller does not. Give returns false, and has done
// nothing, when the stream is the caller's for good or client is no unix socket.
func (s *Stream) Give(client net.Conn) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	socket, ok := client.(*net.UnixConn)
	if !ok || s.kept {
		return false, nil
	}
	defer s.Close()
	raw, err := socket.SyscallConn()
	if err != nil {
		return true, err
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) {
		_, _, sendErr = s.conn.WriteMsgUnix([]byte(CallGive+"\n"), syscall.UnixRights(int(fd)), nil)
	})
	if err == nil {
		err = sendErr
	}
	return true, err
}

// Write sends p to the agent.
func (s *Stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	if err := s.keep(len(p) > MaxCall); err != nil || s.kept {
		s.mu.Unlock() // not held while the agent may make us wait
		if err != nil {
			return 0, err
		}
		return s.conn.Write(p)
	}
	defer s.mu.Unlock()
	head := fmt.Appendf(nil, "%s %d\n", CallSend, len(p))
	n, err := s.conn.Write(append(head, p...))
	return max(0, n-len(head)), err
}

// Read makes the stream the caller's for good.
func (s *Stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	err := s.keep(true)
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return s.conn.Read(p)
}

// CloseWrite ends what is written, and makes the stream the caller's for good.
func (s *Stream) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.keep(true); err != nil {
		return err
	}
	return s.conn.CloseWrite()
}

func (s *Stream) keep(now bool) error {
	if s.kept || !now {
		return nil
	}
	s.kept = true
	_, err := io.WriteString(s.conn, CallKeep+"\n")
	return err
}
