package api

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"banger/internal/api/wire"
)

// How long the API waits for a client that sends nothing.
const (
	headTime = 5 * time.Second
	// bodyTime is for the next part of a body that the client had ready before its request.
	bodyTime = 30 * time.Second
	// archiveTime is for the next part of an archive, which comes from a program that may pause.
	archiveTime = 10 * time.Minute
	// idleTime is for the next request on a connection.
	idleTime = 2 * time.Minute
)

// HTTP returns an HTTP server of the API. It closes connections on which nothing arrives. Requests end with ctx.
func (s *Server) HTTP(ctx context.Context) *http.Server {
	return &http.Server{Handler: s.Handler(), ReadHeaderTimeout: headTime, IdleTimeout: idleTime,
		MaxHeaderBytes: wire.MaxAccess + 64<<10,
		BaseContext:    func(net.Listener) context.Context { return ctx },
		ErrorLog:       slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn)}
}
