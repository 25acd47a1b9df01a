package agenttest

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"banger/internal/testing/processtest"

	"banger"
	"banger/internal/frame"
)

// Running is a command and its stream.
type Running struct {
	t      testing.TB
	Conn   net.Conn
	Frames *frame.Reader
}

// Result is all that a command's stream said.
type Result struct {
	Started        bool
	Stdout, Stderr []byte
	Exit           banger.Exit
	Err            *banger.Error
}

// Shell returns a shell's execution of a script, with its arguments.
func Shell(script string, args ...string) banger.Exec {
	return banger.Exec{Args: append([]string{"sh", "-c", script, "sh"}, args...)}
}

// Run starts a command. Its stream is closed at the test's end.
func (a *Agent) Run(t testing.TB, e banger.Exec) *Running {
	t.Helper()
	conn, err := a.Exec(processtest.WithPatience(t), e)
	if err != nil {
		t.Fatal(err)
	}
	return NewRunning(t, conn)
}

// NewRunning returns what runs behind a stream, which is closed at the test's end.
func NewRunning(t testing.TB, conn net.Conn) *Running {
	conn.SetReadDeadline(time.Now().Add(processtest.Patience))
	t.Cleanup(func() { conn.Close() })
	return &Running{t, conn, frame.NewReader(conn)}
}

// Send sends one frame.
func (r *Running) Send(typ frame.Type, p []byte) error {
	return frame.Write(r.Conn, typ, p)
}

// Feed gives a command its whole stdin, which it need not read.
func (r *Running) Feed(stdin []byte) *Running {
	go func() {
		for len(stdin) > 0 {
			n := min(len(stdin), frame.MaxData)
			if r.Send(frame.Stdin, stdin[:n]) != nil {
				return
			}
			stdin = stdin[n:]
		}
		r.Send(frame.StdinEOF, nil)
	}()
	return r
}

// Until reads output up to and including text; "" stops at the start.
func (r *Running) Until(text string) (out string) {
	r.t.Helper()
	for {
		typ, p, err := r.Frames.Next()
		if err != nil || typ == frame.Exit || typ == frame.Error {
			r.t.Fatalf("after %q came frame %d %q instead of %q: %v", out, typ, p, text, err)
		}
		out += string(p)
		if strings.Contains(out, text) {
			return out
		}
	}
}

// Finish reads the stream to its last frame.
func (r *Running) Finish() (res Result) {
	r.t.Helper()
	for {
		typ, p, err := r.Frames.Next()
		if err != nil {
			r.t.Errorf("the stream ended without a last frame: %v", err)
			return res
		}
		switch typ {
		case frame.Started:
			res.Started = true
		case frame.Stdout:
			res.Stdout = append(res.Stdout, p...)
		case frame.Stderr:
			res.Stderr = append(res.Stderr, p...)
		case frame.Exit:
			if err := json.Unmarshal(p, &res.Exit); err != nil {
				r.t.Error(err)
			}
			return res
		case frame.Error:
			res.Err = new(banger.Error)
			if err := json.Unmarshal(p, res.Err); err != nil {
				r.t.Error(err)
			}
			return res
		}
	}
}
