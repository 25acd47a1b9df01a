package session

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"

	"banger"
	"banger/internal/cli/render"
	"banger/internal/frame"
	"banger/internal/text"
)

// ErrDetached means that the user has left a session, which runs on.
var ErrDetached = errors.New("detached")

// DefaultDetachKeys are the keys that leave a session, as docker's.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// Attachment says how a client is attached to a command that outlives it.
type Attachment struct {
	Keys     []byte // leave the command, when they are typed on a terminal; empty: nothing does
	ReadOnly bool   // nothing is sent, and Ctrl-C leaves
	TTY      bool   // the command has a terminal
	Main     bool   // it is the VM's main command, whose end is told as that of any command
	EOF      bool   // the end of stdin ends the command's; without it, others may still write to a session
	Ends     bool   // signals that say that the user's terminal is gone end the command too
}

// Attach connects the frames of a session with stdio, until the session ends or the user leaves it, which is
// ErrDetached. It returns the exit status of the session's command, and owns conn. The other parameters are those of
// Run.
func Attach(ctx context.Context, conn net.Conn, stdio Stdio, how Attachment, name string,
	ping func(context.Context) error) (int, error) {
	s := newSession(conn, stdio, how.TTY, name, ping)
	s.attached, s.how = true, how
	if how.ReadOnly {
		s.stdin = nil
	}
	if s.tty && s.stdin != nil && render.IsTerminal(s.stdin) {
		s.keys = detacher{keys: how.Keys}
	}
	status, err := s.run(ctx)
	if errors.Is(err, ErrDetached) && s.tty && render.IsTerminal(stdio.Out) {
		stdio.Out.Write([]byte(leaveScreen))
	}
	return status, err
}

// leaveScreen ends what a program may have changed of the user's terminal: it leaves the alternate screen, ends mouse
// reports and bracketed paste, shows the cursor, and resets the rest softly (DECSTR).
const leaveScreen = "\x1b[?1049l\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1006l\x1b[?2004l" +
	"\x1b[!p\x1b[?25h\r\n"

// ParseDetachKeys reads keys as docker writes them, such as ctrl-p,ctrl-q: letters, and ctrl- with a letter or one of
// @ [ \ ] ^ _. An empty text means that no keys leave a session.
func ParseDetachKeys(keys string) ([]byte, error) {
	var got []byte
	if keys == "" {
		return nil, nil
	}
	for key := range strings.SplitSeq(keys, ",") {
		letter, ctrl := strings.CutPrefix(strings.ToLower(key), "ctrl-")
		switch {
		case ctrl && len(letter) == 1 && (letter[0] >= 'a' && letter[0] <= 'z' || strings.Contains(`@[\]^_`, letter)):
			got = append(got, letter[0]&0x1f)
		case !ctrl && len(key) == 1 && key[0] > ' ' && key[0] < 0x7f:
			got = append(got, key[0])
		default:
			return nil, banger.Errorf(banger.CodeInvalid, "%.40q in the detach keys is no key", key).
				WithHint("use letters and ctrl-LETTER with commas between, such as %s", DefaultDetachKeys)
		}
	}
	return got, nil
}

// detacher looks for the keys that leave a session in what is typed.
type detacher struct {
	keys []byte
	seen int // this many of the keys were typed
}

// feed returns what of p goes to the command, and whether the user leaves. It holds back keys that may leave.
func (d *detacher) feed(p []byte) (out []byte, leave bool) {
	if len(d.keys) == 0 {
		return p, false
	}
	out = make([]byte, 0, len(p)+d.seen)
	for _, b := range p {
		if b != d.keys[d.seen] { // what was held back is no detach key after all
			out = append(out, d.keys[:d.seen]...)
			d.seen = 0
		}
		if b != d.keys[d.seen] {
			out = append(out, b)
			continue
		}
		if d.seen++; d.seen == len(d.keys) {
			return out, true
		}
	}
	return out, false
}

// sessionEnd returns the exit status in the last frame of an attached client.
func sessionEnd(payload []byte) (int, error) {
	var end banger.Session
	if err := json.Unmarshal(payload, &end); err != nil {
		return 0, banger.Errorf(banger.CodeGuest, "the agent sent a broken session: %w", err)
	}
	if end.Exit == nil {
		return 0, banger.Errorf(banger.CodeGuest, "how the command has ended is not known: %s", text.Limit(end.Reason, 1024))
	}
	return end.Exit.Status() & 0xff, nil
}

// leaves reports whether a signal ends an attached client, instead of reaching the command: what tells that the user's
// terminal is gone does, and Ctrl-C where the client sends nothing.
func (s *session) leaves(sig os.Signal) bool {
	gone := sig == syscall.SIGHUP || sig == syscall.SIGTERM
	return s.attached && (gone && !s.how.Ends || s.how.ReadOnly && sig == os.Interrupt)
}

// show writes a frame of output, or the drawing of a screen, and ignores other frames.
func (s *session) show(t frame.Type, payload []byte) (err error) {
	switch t {
	case frame.Stdout, frame.Screen:
		_, err = s.stdout.Write(payload)
	case frame.Stderr:
		_, err = s.stderr.Write(payload)
	}
	if err != nil {
		return banger.Errorf(banger.CodeInternal, "cannot write the command's output: %w", err)
	}
	return nil
}
