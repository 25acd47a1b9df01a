package agent

import (
	"context"
	"net"

	"banger/internal/frame"
)

// ready answers when the guest's init obeys commands, unless the client goes away before.
func (s *server) ready(conn net.Conn, frames *frame.Reader) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with the stream
		frames.Next()
		cancel()
	}()
	if err := s.system.Ready(ctx); err != nil {
		sendError(conn, err)
		return
	}
	frame.WriteJSON(conn, frame.Response, info())
}
