package agenttest

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"banger/internal/testing/processtest"

	"banger"
)

// Running is a command and its stream.
type Running struct {
	t      testing.TB
	Conn   net.Conn
	Frames *banger.FrameReader
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
	return &Running{t, conn, banger.NewFrameReader(conn)}
}

// Send sends one frame.
func (r *Running) Send(typ banger.FrameType, p []byte) error {
	return banger.WriteFrame(r.Conn, typ, p)
}

// Feed gives a command its whole stdin, which it need not read.
func (r *Running) Feed(stdin []byte) *Running {
	go func() {
		for len(stdin) > 0 {
			n := min(len(stdin), banger.MaxData)
			if r.Send(banger.FrameStdin, stdin[:n]) != nil {
				return
			}
			stdin = stdin[n:]
		}
		r.Send(banger.FrameStdinEOF, nil)
	}()
	return r
}

// Until reads output up to and including text; "" stops at the start.
func (r *Running) Until(text string) (out string) {
	r.t.Helper()
	for {
		typ, p, err := r.Frames.Next()
		if err != nil || typ == banger.FrameExit || typ == banger.FrameError {
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
		case banger.FrameStarted:
			res.Started = true
		case banger.FrameStdout:
			res.Stdout = append(res.Stdout, p...)
		case banger.FrameStderr:
			res.Stderr = append(res.Stderr, p...)
		case banger.FrameExit:
			if err := json.Unmarshal(p, &res.Exit); err != nil {
				r.t.Error(err)
			}
			return res
		case banger.FrameError:
			res.Err = new(banger.Error)
			if err := json.Unmarshal(p, res.Err); err != nil {
				r.t.Error(err)
			}
			return res
		}
	}
}
