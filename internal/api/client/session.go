package client

import (
	"context"
	"io"
	"net"
	"net/url"
	"strconv"
	"time"

	"banger"
	"banger/internal/api/wire"
)

// sessionPath returns the path of a session, or of a verb of it.
func sessionPath(vm, name, verb string) string {
	p := vmPath(vm, "sessions/"+name)
	if verb != "" {
		p += "/" + verb
	}
	return p
}

// Sessions returns the sessions of a VM, the newest first.
func (c sessionClient) Sessions(ctx context.Context, vm string) (list []banger.Session, err error) {
	return list, c.call(ctx, "GET", vmPath(vm, "sessions"), nil, nil, &list)
}

// StartSession starts a session.
func (c sessionClient) StartSession(ctx context.Context, vm string, spec banger.SessionSpec) (s banger.Session,
	err error) {
	if err := spec.Check(); err != nil { // before JSON replaces bytes that are not UTF-8
		return s, err
	}
	return s, c.call(ctx, "POST", vmPath(vm, "sessions"), nil, spec, &s)
}

// Session returns one session.
func (c sessionClient) Session(ctx context.Context, vm, name string) (s banger.Session, err error) {
	return s, c.call(ctx, "GET", sessionPath(vm, name, ""), nil, nil, &s)
}

// RemoveSession removes a session that has ended or, with force, ends it first.
func (c sessionClient) RemoveSession(ctx context.Context, vm, name string, force bool) error {
	return c.call(ctx, "DELETE", sessionPath(vm, name, ""), url.Values{"force": {strconv.FormatBool(force)}}, nil, nil)
}

// SignalSession sends a signal to a session's command.
func (c sessionClient) SignalSession(ctx context.Context, vm, name string, signal int) (s banger.Session, err error) {
	return s, c.call(ctx, "POST", sessionPath(vm, name, "signal"), url.Values{"signal": {strconv.Itoa(signal)}}, nil, &s)
}

// StopSession ends a session for good. Its command has grace, in whole seconds, to end by itself.
func (c sessionClient) StopSession(ctx context.Context, vm, name string, grace time.Duration) (s banger.Session,
	err error) {
	return s, c.call(ctx, "POST", sessionPath(vm, name, "stop"), graceQuery(grace), nil, &s)
}

// WaitSession returns when a session has ended.
func (c sessionClient) WaitSession(ctx context.Context, vm, name string) (s banger.Session, err error) {
	return s, c.call(ctx, "GET", sessionPath(vm, name, "wait"), nil, nil, &s)
}

// ReadySession returns when a session is ready, or an error after a time of whole seconds.
func (c sessionClient) ReadySession(ctx context.Context, vm, name string, within time.Duration) (s banger.Session,
	err error) {
	return s, c.call(ctx, "GET", sessionPath(vm, name, "ready"), withinQuery(within), nil, &s)
}

// SendSession gives a session's command what r has as stdin, which then ends if end says so.
func (c sessionClient) SendSession(ctx context.Context, vm, name string, end bool, r io.Reader) (s banger.Session,
	err error) {
	return s, c.call(ctx, "POST", sessionPath(vm, name, "send"), url.Values{"eof": {strconv.FormatBool(end)}}, r, &s)
}

// AttachSession opens a stream to a session, as the server's route describes. The caller owns the connection.
func (c sessionClient) AttachSession(ctx context.Context, vm, name string, v banger.SessionView) (net.Conn, error) {
	q := url.Values{}
	if v.Position != nil {
		q.Set("position", strconv.FormatUint(*v.Position, 10))
	}
	for key, on := range map[string]bool{"screen": v.Screen, "read_only": v.ReadOnly} {
		if on {
			q.Set(key, "true")
		}
	}
	return c.upgrade(ctx, sessionPath(vm, name, "attach"), sizeQuery(q, v.Rows, v.Cols), nil, wire.UpgradeExec)
}

// SessionOutput returns what v selects of a session's output, as frames. The caller must close it.
func (c sessionClient) SessionOutput(ctx context.Context, vm, name string, v banger.LogView) (io.ReadCloser, error) {
	resp, err := c.send(ctx, "GET", sessionPath(vm, name, "output"), logQuery(v), nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
