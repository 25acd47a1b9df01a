package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"banger"
)

// How long the API waits for a client that says nothing.
const (
	headTime = 5 * time.Second
	// bodyTime is for the next part of a body that the client made before it asked.
	bodyTime = 30 * time.Second
	// archiveTime is for the next part of an archive, which comes from a program that may pause.
	archiveTime = 10 * time.Minute
	// idleTime is for the next request on a connection.
	idleTime = 2 * time.Minute
)

// HTTP returns an HTTP server of the API. It closes connections on which nothing comes. Requests end with ctx.
func (s *Server) HTTP(ctx context.Context) *http.Server {
	return &http.Server{Handler: s.Handler(), ReadHeaderTimeout: headTime, IdleTimeout: idleTime, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn)}
}

// body is a request's body of which the next part must come in time. What a handler leaves unread, the HTTP server reads
// and drops before it answers, so the deadline stays until the body has ended.
type body struct {
	io.ReadCloser
	conn *http.ResponseController
	time time.Duration
}

// patiently returns the body of req as a body, which has a deadline from now on, unless it is empty.
func patiently(w http.ResponseWriter, req *http.Request, limit int64, time time.Duration) io.ReadCloser {
	if req.ContentLength == 0 {
		return req.Body
	}
	b := &body{http.MaxBytesReader(w, req.Body, limit), http.NewResponseController(w), time}
	b.extend()
	return b
}

// extend lets the next part come in b.time. An error means that the connection is gone, which a Read tells.
func (b *body) extend() { b.conn.SetReadDeadline(time.Now().Add(b.time)) }

// Read reads from the body. At its end the connection has no deadline any more, for its handler may answer for long.
func (b *body) Read(p []byte) (int, error) {
	b.extend()
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		b.conn.SetReadDeadline(time.Time{})
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = banger.Errorf(banger.CodeTimeout, "the body of the request did not come within %s", b.time)
	}
	return n, err
}

// decode reads a JSON body strictly, to its end: an unknown field is a mistake worth telling, and so is more than one value.
func decode(req *http.Request, v any) error {
	d := json.NewDecoder(req.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if late, ok := errors.AsType[*banger.Error](err); ok {
			return late
		}
		return banger.Errorf(banger.CodeInvalid, "cannot read the request body: %w", err)
	}
	switch _, err := d.Token(); {
	case err == io.EOF:
		return nil
	case banger.CodeOf(err) == banger.CodeTimeout:
		return err
	}
	return banger.Errorf(banger.CodeInvalid, "the request body goes on behind its JSON value")
}
