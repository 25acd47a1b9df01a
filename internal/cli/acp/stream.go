package acp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"banger"
	"banger/internal/acp"
	"banger/internal/cli/command"
	"banger/internal/frame"
	"banger/internal/text"
)

// stream is the connection with the session of an agent. It is made again when it breaks: the daemon may end, and the
// VM may be suspended. What the agent writes meanwhile is in the session, and arrives afterwards.
type stream struct {
	app     *command.App
	vm      string
	session string
	bridge  *acp.Bridge

	mu   sync.Mutex // for the fields below
	conn net.Conn
	next *uint64       // the position of what the agent writes next; nil: from now on
	back chan struct{} // gets a value when there is a new connection
}

// patience is how long the stream tries to come back.
const patience = 2 * time.Minute

// open connects with the session. The caller holds mu.
func (s *stream) open(ctx context.Context) error {
	if s.conn != nil {
		return nil
	}
	conn, err := s.app.Client.AttachSession(ctx, s.vm, s.session, banger.SessionView{Position: s.next})
	if banger.CodeOf(err) == banger.CodeUnavailable { // no daemon answers
		if _, err = s.app.Connect(ctx); err == nil {
			conn, err = s.app.Client.AttachSession(ctx, s.vm, s.session, banger.SessionView{Position: s.next})
		}
	}
	if err != nil {
		return err
	}
	s.conn = conn
	select {
	case s.back <- struct{}{}:
	default:
	}
	return nil
}

// drop forgets a connection that has broken.
func (s *stream) drop(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	conn.Close()
	if s.conn == conn {
		s.conn = nil
	}
}

// send gives a message to the agent. A message that a broken connection has cut is sent whole again, in a line of its
// own.
func (s *stream) send(ctx context.Context, line []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	deadline := time.Now().Add(patience)
	for again := false; ; again = true {
		err := s.open(ctx)
		if err == nil {
			data := line
			if again {
				data = append([]byte("\n"), line...)
			}
			if _, err = frame.Data(s.conn, frame.Stdin).Write(data); err == nil {
				return nil
			}
			s.conn.Close()
			s.conn = nil
		}
		if gone(err) || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// gone reports whether an error says that there is nothing to come back to.
func gone(err error) bool {
	switch banger.CodeOf(err) {
	case banger.CodeNotFound, banger.CodeConflict, banger.CodeInvalid:
		return true
	}
	return false
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// end tells the agent that the editor says no more.
func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		frame.Write(s.conn, frame.StdinEOF, nil)
	}
}

// receive calls line for each line of the agent's output, until the agent ends, and returns its exit status. A stream
// that has broken while the editor waits for nothing comes back when the editor says something: so that it does not
// wake a VM that was suspended.
func (s *stream) receive(ctx context.Context, stderr io.Writer, line func([]byte) error) (int, error) {
	lines := &splitter{line: line}
	deadline := time.Time{}
	for {
		s.mu.Lock()
		conn := s.conn
		s.mu.Unlock()
		if conn == nil && !s.bridge.Waiting() {
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-s.back:
			}
			continue
		}
		if conn == nil {
			s.mu.Lock()
			err := s.open(ctx)
			s.mu.Unlock()
			if err != nil {
				if deadline.IsZero() {
					deadline = time.Now().Add(patience)
				}
				if gone(err) || time.Now().After(deadline) || ctx.Err() != nil {
					return 0, err
				}
				pause(ctx, 200*time.Millisecond)
			}
			continue
		}
		deadline = time.Time{}
		status, ended, err := s.read(conn, stderr, lines)
		if ended || err != nil {
			return status, err
		}
		s.drop(conn)
	}
}

// read reads one connection. ended means that the agent has; otherwise the connection has.
func (s *stream) read(conn net.Conn, stderr io.Writer, lines *splitter) (status int, ended bool, err error) {
	for frames := frame.NewReader(conn); ; {
		t, p, ferr := frames.Next()
		if ferr != nil {
			return 0, false, nil
		}
		switch t {
		case frame.Stamp:
			if at, _, ok := frame.ParseStamp(p); ok {
				s.at(at)
			}
		case frame.Stdout:
			if err := lines.write(p); err != nil {
				return 0, true, err
			}
			s.passed(len(p))
		case frame.Stderr:
			stderr.Write(p)
			s.passed(len(p))
		case frame.Error:
			var e banger.Error
			if json.Unmarshal(p, &e) != nil || !gone(&e) {
				return 0, false, nil
			}
			return 0, true, text.Error(e)
		case frame.Exit:
			var end banger.Session
			if json.Unmarshal(p, &end) != nil || end.Exit == nil {
				return 0, true, banger.Errorf(banger.CodeGuest, "how the agent has ended is not known")
			}
			return end.Exit.Status() & 0xff, true, nil
		}
	}
}

// at sets the position of what comes next.
func (s *stream) at(position uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = &position
}

// passed moves the position behind n bytes that have come.
func (s *stream) passed(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		next := *s.next + uint64(n)
		s.next = &next
	}
}

// splitter makes lines of pieces.
type splitter struct {
	line func([]byte) error
	rest []byte
}

var errTooLong = errors.New("a message of the agent is longer than 64 MiB")

func (l *splitter) write(p []byte) error {
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			break
		}
		whole := append(l.rest, p[:i+1]...)
		l.rest, p = nil, p[i+1:]
		if err := l.line(whole); err != nil {
			return err
		}
	}
	if len(l.rest)+len(p) > acp.MaxMessage {
		return errTooLong
	}
	l.rest = append(l.rest, p...)
	return nil
}
