package shim

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
)

// Stream is a stream to the guest's agent. It can be given away until it is first read from.
type Stream struct {
	net.Conn
	conn *net.UnixConn // the same connection as Conn
	mu   sync.Mutex
	kept bool // the shim knows that the stream will not be given away
}

// Offer opens a stream to a port of the guest's agent, as Dial does, that can be given away. If the shim is too old
// for that, the stream is like one of Dial.
func (c Client) Offer(ctx context.Context, port uint32) (*Stream, error) {
	return c.offer(ctx, CallOffer, port)
}

// OfferMain is Offer for the stream on which the main command is started. Its client also gets the command's output.
func (c Client) OfferMain(ctx context.Context, port uint32) (*Stream, error) {
	return c.offer(ctx, CallMain, port)
}

// OrNil returns the stream of Offer as a connection that is nil after an error.
func OrNil(stream *Stream, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return stream, nil
}

func (c Client) offer(ctx context.Context, call string, port uint32) (*Stream, error) {
	conn, err := c.dial(ctx, call, port)
	if err == errUnknownCall {
		conn, err = c.dial(ctx, CallConnect, port)
		return &Stream{Conn: conn, conn: conn, kept: true}, err
	}
	return &Stream{Conn: conn, conn: conn}, err
}

// Give makes the shim serve client instead of this end of the stream, and closes this end. What was written here
// before is sent first. The caller still owns and must close client. The shim has a copy of it, which stays open when
// the caller dies. Give returns false, without any effect, if the stream can no longer be given away or if client is
// not a unix socket.
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
		s.mu.Unlock() // not held, because the agent may block the write
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

// Read reads from the stream, which can then no longer be given away.
func (s *Stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	err := s.keep(true)
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return s.conn.Read(p)
}

// CloseWrite ends the sending direction. The stream can then no longer be given away.
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
