package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"banger/internal/shim"
	"banger/internal/splice"
)

// offered serves the calls about a stream that was offered on conn, until it is known who gets the other end. Before
// that it reads nothing from the stream.
func (s *server) offered(ctx context.Context, conn, stream net.Conn) {
	s.offer(ctx, conn, stream, func(client net.Conn) net.Conn { return client })
}

// offer is offered for a stream whose client gets what to returns for its connection.
func (s *server) offer(ctx context.Context, conn, stream net.Conn, to func(client net.Conn) net.Conn) {
	for {
		conn.SetReadDeadline(time.Now().Add(shim.CallTime))
		line, file, err := readCall(conn.(*net.UnixConn))
		if err != nil {
			break
		}
		conn.SetReadDeadline(time.Time{})
		call, arg, _ := strings.Cut(line, " ")
		switch {
		case call == shim.CallGive && file != nil:
			if client, err := net.FileConn(file); err == nil {
				conn.Close()
				splice.Counted(ctx, to(client), stream, &s.moved)
			}
		case call == shim.CallKeep:
			splice.Counted(ctx, to(conn), stream, &s.moved)
		case call == shim.CallSend && send(stream, conn, arg) == nil:
			s.moved.Add(1)
			continue
		}
		file.Close()
		break
	}
	stream.Close()
}

// send passes on the number of bytes that arg gives.
func send(stream io.Writer, conn io.Reader, arg string) error {
	n, err := strconv.ParseUint(arg, 10, 32)
	if err != nil || n > shim.MaxCall {
		return fmt.Errorf("a length of %.20q", arg)
	}
	_, err = io.CopyN(stream, conn, int64(n))
	return err
}

// stats returns the counters of the VM and of what moves for clients.
func (s *server) stats(ctx context.Context) (st shim.Stats, err error) {
	if s.stack != nil {
		st.NetIn, st.NetOut = s.stack.Traffic()
	}
	st.Moved = s.moved.Load() + s.recorder.moved.Load()
	if s.gate != nil {
		st.Moved += s.gate.Moved()
	}
	st.Stats, err = s.proc.Stats(ctx)
	return st, err
}
