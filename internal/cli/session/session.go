// Package session connects a command in a VM, or an SSH server's stream, with the stdio, terminal and signals of this
// process. It tells the user when the VM stops answering.
//
// It must not know how the daemon makes the streams, nor which command the user typed.
package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	"banger"
	"banger/internal/cli/render"
	"banger/internal/frame"
	"banger/internal/text"
)

// Stdio is the standard input and output of this process.
type Stdio struct {
	In       *os.File // nil if the command gets no input
	Out, Err io.Writer
}

// Run connects the frames of a command with stdio until the command ends, and returns its exit status. It owns conn.
// tty says that the command has a terminal. ping tests whether the guest answers. name is the VM's name as the user
// knows it.
func Run(ctx context.Context, conn net.Conn, stdio Stdio, tty bool, name string,
	ping func(context.Context) error) (int, error) {
	return newSession(conn, stdio, tty, name, ping).run(ctx)
}

func newSession(conn net.Conn, stdio Stdio, tty bool, name string, ping func(context.Context) error) *session {
	return &session{
		conn:    conn,
		stdin:   stdio.In,
		stdout:  stdio.Out,
		stderr:  stdio.Err,
		tty:     tty,
		ping:    ping,
		silence: NewSilence(name, "Ctrl-C ends this command", ping, stdio.Err),
		escaped: make(chan error, 1),
	}
}

// session is the client's end of a command in a VM. It connects the frames of the command with this process's stdio,
// terminal and signals.
type session struct {
	conn           net.Conn
	stdin          *os.File // nil: the command has none
	stdout, stderr io.Writer
	tty            bool
	ping           func(context.Context) error // tests whether the guest answers; nil: no test
	silence        *Silence                    // nil: no watch
	// escaped holds one value if what was typed ends this client: Ctrl-C while the guest was silent, or the detach keys.
	escaped chan error

	attached bool // the command outlives this client
	how      Attachment
	keys     detacher

	mu sync.Mutex // serialises writes to conn
}

// startTime is the time in which the agent must say that a command runs.
const startTime = time.Minute

// pingTime is the time in which a guest must answer after it was sent a signal.
const pingTime = 10 * time.Second

// ctrlC is the byte that a raw terminal sends for Ctrl-C. A raw terminal raises no signal for it.
const ctrlC = 3

// ErrInterrupted means that a second Ctrl-C, or a second SIGTERM, ended the client.
var ErrInterrupted = errors.New("interrupted")

// forwarded are the signals that reach the command.
var forwarded = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGWINCH,
	syscall.SIGUSR1, syscall.SIGUSR2}

// ending is how a command ended, or why that is not known.
type ending struct {
	status int
	err    error
}

// run copies until the command ends and returns its exit status. It closes conn.
func (s *session) run(ctx context.Context) (int, error) {
	defer s.conn.Close()
	restore, err := s.makeRaw()
	if err != nil {
		return 0, err
	}
	defer restore()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	if s.stdin != nil {
		go s.sendStdin() // ends with the process; a read of stdin cannot be cut short
	}
	done := make(chan ending, 1)
	go func() { done <- s.receive() }()
	forwards := make(chan os.Signal, 16)
	defer close(forwards)
	go func() { // ends with run, which closes conn and so frees a blocked write
		for sig := range forwards {
			s.forward(sig)
		}
	}()
	defer s.silence.Start(ctx)()
	silent := make(chan error, 1)
	asked, stop := context.WithCancel(ctx)
	defer stop()
	seen := map[os.Signal]int{}
	for {
		select {
		case r := <-done:
			return r.status, r.err
		case err := <-s.escaped:
			return 128 + int(syscall.SIGINT), err
		case err := <-silent:
			if err != nil && ctx.Err() == nil {
				return 0, banger.Errorf(banger.CodeGuest,
					"the guest does not answer, so the signal has not reached the command: %w", err).
					WithHint("see what the guest does: banger logs --console VM")
			}
		case sig := <-signals:
			if s.leaves(sig) {
				return 128 + int(sig.(syscall.Signal)), ErrDetached
			}
			if slices.Contains(forwarded[:3], sig) { // those that end most programs
				if seen[sig]++; seen[sig] == 2 {
					return 128 + int(sig.(syscall.Signal)), ErrInterrupted
				}
				if len(seen) == 1 && s.ping != nil {
					go func() { silent <- s.ask(asked) }() // ends with run
				}
			}
			// A VM that takes no more bytes must not delay the second Ctrl-C.
			select {
			case forwards <- sig:
			default:
			}
		}
	}
}

// makeRaw makes our terminal raw if stdin is a terminal and the command has one. The command's terminal then handles
// the keys.
func (s *session) makeRaw() (restore func(), err error) {
	if !s.tty || s.stdin == nil || !term.IsTerminal(int(s.stdin.Fd())) {
		return func() {}, nil
	}
	old, err := term.MakeRaw(int(s.stdin.Fd()))
	return func() { term.Restore(int(s.stdin.Fd()), old) }, err
}

// ask returns an error if the guest does not answer within pingTime.
func (s *session) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	return s.ping(ctx)
}

func (s *session) send(t frame.Type, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return frame.Write(s.conn, t, p)
}

func (s *session) forward(sig os.Signal) {
	if sig == syscall.SIGWINCH {
		if rows, cols := render.TerminalSize(s.stdout); s.tty && rows > 0 {
			data, _ := json.Marshal(frame.Resize{Rows: rows, Cols: cols})
			s.send(frame.Size, data)
		}
		return
	}
	if n, ok := sig.(syscall.Signal); ok {
		s.send(frame.Signal, []byte{byte(n)})
	}
}

// sendStdin sends stdin in frames. It fills each frame behind its header, and so copies each chunk only once.
func (s *session) sendStdin() {
	buf := make([]byte, frame.Header+frame.MaxData)
	for {
		n, err := s.stdin.Read(buf[frame.Header : len(buf)-len(s.keys.keys)])
		if s.tty && s.silence.warned() && bytes.IndexByte(buf[frame.Header:][:n], ctrlC) >= 0 {
			s.escaped <- ErrInterrupted // run ends, and then this process does
			return
		}
		typed, leave := s.keys.feed(buf[frame.Header:][:n])
		if len(typed) > 0 {
			copy(buf[frame.Header:], typed)
			frame.PutHeader(buf, frame.Stdin, len(typed))
			s.mu.Lock()
			_, werr := s.conn.Write(buf[:frame.Header+len(typed)])
			s.mu.Unlock()
			if werr != nil {
				return
			}
		}
		if leave {
			s.escaped <- ErrDetached
			return
		}
		if err != nil {
			if !s.attached || s.how.Ends || s.how.EOF {
				s.send(frame.StdinEOF, nil)
			}
			return
		}
	}
}

// receive returns how the command has ended, once its output was copied.
func (s *session) receive() ending {
	status, err := s.frames()
	return ending{status, err}
}

// frames copies output until the command ends, and returns its status.
func (s *session) frames() (int, error) {
	frames := frame.NewReader(s.conn)
	s.conn.SetReadDeadline(time.Now().Add(startTime))
	for started := false; ; started = true {
		t, p, err := frames.Next()
		if err == nil {
			s.silence.Hear()
		}
		if !started {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return 0, banger.Errorf(banger.CodeGuest,
					"the command did not start within %s, since the guest's agent does not answer", startTime).
					WithHint("see what the guest does: banger logs --console VM")
			}
			s.conn.SetReadDeadline(time.Time{})
		}
		if err != nil {
			return 0, banger.Errorf(banger.CodeGuest, "the VM went away while the command ran: %w", err)
		}
		switch t {
		case frame.Exit:
			if s.attached && !s.how.Main {
				return sessionEnd(p)
			}
			var e banger.Exit
			if err := json.Unmarshal(p, &e); err != nil {
				return 0, banger.Errorf(banger.CodeGuest, "the agent sent a broken exit: %w", err)
			}
			return e.Status() & 0xff, nil
		case frame.Error:
			var e banger.Error
			if err := json.Unmarshal(p, &e); err != nil {
				return 0, banger.Errorf(banger.CodeGuest, "the agent sent a broken error: %w", err)
			}
			return 0, text.Error(e)
		default:
			if err := s.show(t, p); err != nil {
				return 0, err
			}
		}
	}
}
