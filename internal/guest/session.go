package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/text"
)

// SessionRequest is the part of a Request about sessions.
type SessionRequest struct {
	Name  string              `json:"name,omitempty"`
	Spec  *banger.SessionSpec `json:"spec,omitempty"`  // of OpSessionStart
	Force bool                `json:"force,omitempty"` // of OpSessionRemove: end it first
	End   bool                `json:"end,omitempty"`   // of OpSessionSend: the command's stdin then ends
	View  banger.SessionView  `json:"view,omitzero"`   // of OpSessionAttach
	Since string              `json:"since,omitempty"` // of OpSessionEvents: a cursor
	Once  bool                `json:"once,omitempty"`  // of OpSessionEvents: end at the present state
}

const (
	// OpSessionReady answers the session when it is ready.
	OpSessionReady = "session-ready"
	// OpSessionEvents answers a banger.SessionChange for each change behind a cursor, and Exit at the present state if it
	// is to end there.
	OpSessionEvents = "session-events"
)

// maxSessions is the maximum number of sessions that an agent may list, maxPosition that of a position, and maxReason
// that of the characters of a reason.
const (
	maxSessions = 1024
	maxPosition = 1 << 62 // so that no sum of positions overflows
	maxReason   = 1024
)

// checkSession bounds what an agent says about a session, and makes it printable.
func checkSession(s *banger.Session) {
	s.Name = text.Limit(s.Name, 63)
	s.State = text.Limit(s.State, 20)
	s.Reason = text.Limit(s.Reason, maxReason)
	s.PID, s.Restarts, s.PeakMemory = max(s.PID, 0), max(s.Restarts, 0), max(s.PeakMemory, 0)
	s.First = min(s.First, s.End)
	s.Restart.Name, s.Restart.Max = text.Limit(s.Restart.Name, 20), max(s.Restart.Max, 0)
	s.Command.Dir = text.Limit(s.Command.Dir, maxReason)
	s.Command.User = text.Limit(s.Command.User, maxReason)
	for i, word := range s.Command.Args {
		s.Command.Args[i] = text.Limit(word, banger.MaxExecSize)
	}
	for i, kv := range s.Command.Env {
		s.Command.Env[i] = text.Limit(kv, maxReason)
	}
	if s.Readiness != nil {
		s.Readiness.Reason = text.Limit(s.Readiness.Reason, maxReason)
	}
	if s.Exit != nil {
		s.Exit.Code &= 0xff
		s.Exit.Signal = min(max(s.Exit.Signal, 0), 64)
	}
}

// checkChange bounds what an agent says about a change of sessions, and makes it printable.
func checkChange(c *banger.SessionChange) {
	c.Cursor, c.Removed, c.Error = text.Limit(c.Cursor, maxCursor), text.Limit(c.Removed, 63), nil
	if c.Session != nil {
		checkSession(c.Session)
	}
	for i := range c.Sessions {
		checkSession(&c.Sessions[i])
	}
}

// maxCursor is the maximum number of characters of a cursor.
const maxCursor = 33

// Events calls tell with what happens to sessions behind the cursor since, until ctx ends. With once it ends at the
// present state. It returns the error of tell.
func (c Sessions) Events(ctx context.Context, since string, once bool, tell func(banger.SessionChange) error) error {
	conn, err := c.send(ctx, Request{Op: OpSessionEvents, Session: &SessionRequest{Since: since, Once: once}})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for frames := frame.NewReader(conn); ; {
		t, p, err := frames.Next()
		switch {
		case ctx.Err() != nil || t == frame.Exit && once:
			return nil
		case err != nil:
			return banger.Errorf(banger.CodeGuest, "the agent tells no more what happens to sessions: %w", err)
		case t == frame.Error:
			return agentError(p)
		}
		change := struct {
			banger.SessionChange
			Sessions sessionList `json:"sessions"`
		}{}
		if err := json.Unmarshal(p, &change); err != nil || t != frame.Response {
			return banger.Errorf(banger.CodeGuest, "what the agent tells of its sessions is broken")
		}
		change.SessionChange.Sessions = change.Sessions
		checkChange(&change.SessionChange)
		if err := tell(change.SessionChange); err != nil {
			return err
		}
	}
}

// Sessions makes the requests about the sessions of one guest.
type Sessions struct{ Client }

// session makes a request that is answered with a session.
func (c Sessions) session(ctx context.Context, r Request) (s banger.Session, err error) {
	conn, err := c.send(ctx, r)
	if err != nil {
		return s, err
	}
	err = answer(ctx, conn, frame.Response, &s)
	checkSession(&s)
	return s, err
}

// briefly is like session, with an error if the agent does not answer in time.
func (c Sessions) briefly(caller context.Context, r Request) (banger.Session, error) {
	ctx, cancel := context.WithTimeout(caller, callTimeout)
	defer cancel()
	s, err := c.session(ctx, r)
	return s, unanswered(caller, err)
}

// List returns all sessions, the newest first.
func (c Sessions) List(caller context.Context) ([]banger.Session, error) {
	ctx, cancel := context.WithTimeout(caller, callTimeout)
	defer cancel()
	conn, err := c.send(ctx, Request{Op: OpSessions})
	if err != nil {
		return nil, unanswered(caller, err)
	}
	var list sessionList
	if err := answer(ctx, conn, frame.Response, &list); err != nil {
		return nil, unanswered(caller, err)
	}
	for i := range list {
		checkSession(&list[i])
	}
	return list, nil
}

// sessionList is a list of at most maxSessions sessions. A longer one is refused before it takes memory: a frame has
// room for sessions of half a gigabyte.
type sessionList []banger.Session

func (l *sessionList) UnmarshalJSON(data []byte) (err error) {
	*l, err = decodeList[banger.Session](data, maxSessions)
	return err
}

// decodeList reads a list of at most most elements.
func decodeList[T any](data []byte, most int) ([]T, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, fmt.Errorf("it is no list: %.20q", data)
	}
	list := []T{}
	for d.More() {
		if len(list) == most {
			return nil, fmt.Errorf("it lists more than %d", most)
		}
		var one T
		if err := d.Decode(&one); err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return list, nil
}

// Get returns one session.
func (c Sessions) Get(ctx context.Context, name string) (banger.Session, error) {
	return c.briefly(ctx, Request{Op: OpSession, Session: &SessionRequest{Name: name}})
}

// Start starts a session.
func (c Sessions) Start(ctx context.Context, spec banger.SessionSpec) (banger.Session, error) {
	return c.briefly(ctx, Request{Op: OpSessionStart, Session: &SessionRequest{Spec: &spec}})
}

// Signal sends a signal to a session's command.
func (c Sessions) Signal(ctx context.Context, name string, sig int) (banger.Session, error) {
	return c.briefly(ctx, Request{Op: OpSessionSignal, Signal: sig, Session: &SessionRequest{Name: name}})
}

// Stop ends a session, whose command has grace to end by itself, and returns when it has ended.
func (c Sessions) Stop(ctx context.Context, name string, grace time.Duration) (banger.Session, error) {
	return c.session(ctx, Request{Op: OpSessionStop, Grace: grace.Milliseconds(), Session: &SessionRequest{Name: name}})
}

// Remove removes a session that has ended. With force it ends the session first.
func (c Sessions) Remove(ctx context.Context, name string, force bool) error {
	_, err := c.briefly(ctx, Request{Op: OpSessionRemove, Session: &SessionRequest{Name: name, Force: force}})
	return err
}

// Wait returns when a session has ended.
func (c Sessions) Wait(ctx context.Context, name string) (banger.Session, error) {
	return c.session(ctx, Request{Op: OpSessionWait, Session: &SessionRequest{Name: name}})
}

// Ready returns when a session is ready, or an error after a time.
func (c Sessions) Ready(ctx context.Context, name string, within time.Duration) (banger.Session, error) {
	return c.session(ctx, Request{Op: OpSessionReady, Wait: max(within.Milliseconds(), 1),
		Session: &SessionRequest{Name: name}})
}

// Readiness returns what the ready probe of the VM has seen. Unless within is 0, it returns when the VM is ready, or an
// error after that time.
func (c Client) Readiness(ctx context.Context, within time.Duration) (r banger.Readiness, err error) {
	conn, err := c.send(ctx, Request{Op: OpHealth, Wait: within.Milliseconds()})
	if err != nil {
		return r, err
	}
	err = answer(ctx, conn, frame.Response, &r)
	r.Reason = text.Limit(r.Reason, maxReason)
	return r, err
}

// Attach opens the stream of a client of a session, as OpSessionAttach describes. The caller owns it.
func (c Sessions) Attach(ctx context.Context, name string, v banger.SessionView) (net.Conn, error) {
	return c.send(ctx, Request{Op: OpSessionAttach, Session: &SessionRequest{Name: name, View: v}})
}

// Send gives a session's command what r has as stdin, which then ends if end says so.
func (c Sessions) Send(ctx context.Context, name string, end bool, r io.Reader) (s banger.Session, err error) {
	conn, err := c.send(ctx, Request{Op: OpSessionSend, Session: &SessionRequest{Name: name, End: end}})
	if err != nil {
		return s, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	failed := sendStdin(conn, r)
	if _, ok := errors.AsType[*banger.Error](failed); ok { // the client's own bytes could not be read
		conn.Close()
		return s, failed
	}
	// The agent says why it takes no more, if that is why the connection failed.
	err = answer(ctx, conn, frame.Response, &s)
	checkSession(&s)
	return s, err
}

// sendStdin sends what r has as frames of stdin.
func sendStdin(conn net.Conn, r io.Reader) error {
	buf := make([]byte, frame.Header+64<<10)
	for {
		n, err := r.Read(buf[frame.Header:])
		if n > 0 {
			frame.PutHeader(buf, frame.Stdin, n)
			if _, err := conn.Write(buf[:frame.Header+n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return frame.Write(conn, frame.StdinEOF, nil)
		}
		if err != nil {
			return banger.Errorf(banger.CodeInvalid, "the input cannot be read: %w", err)
		}
	}
}

// CopyOutput writes the output that a stream of OpSessionAttach carries to w, as the same frames, until the stream
// ends. It checks that positions do not go back. After the error of a broken stream, the caller can go on from what w
// has.
func CopyOutput(w io.Writer, conn io.Reader, position uint64) error {
	frames := frame.NewReader(conn)
	for begun, stamped := false, false; ; {
		t, p, err := frames.Next()
		if err != nil {
			return banger.Errorf(banger.CodeGuest, "the agent did not send all output: %w", err)
		}
		switch {
		case t == frame.Started && !begun:
			begun = true
			w.Write(nil) // begins the answer, whose first byte may come late
			continue
		case t == frame.Exit:
			return nil
		case t == frame.Error:
			return agentError(p)
		case t == frame.Stamp:
			at, _, ok := frame.ParseStamp(p)
			if !ok || at < position || at > maxPosition || stamped {
				return banger.Errorf(banger.CodeGuest, "the agent sent output from byte %d on at byte %d", at, position)
			}
			position, stamped = at, true
		case t == frame.Stdout || t == frame.Stderr:
			if !stamped || len(p) == 0 {
				return banger.Errorf(banger.CodeGuest, "the agent sent output without its position")
			}
			position, stamped = position+uint64(len(p)), false
		default:
			return banger.Errorf(banger.CodeGuest, "the agent sent frame %d in a session's output", t)
		}
		if err := frame.Write(w, t, p); err != nil {
			return nil // the reader is gone
		}
	}
}
