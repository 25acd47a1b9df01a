package session

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"banger"
	"banger/internal/agent/command"
	"banger/internal/agent/console"
	"banger/internal/agent/probe"
	"banger/internal/agent/screen"
	"banger/internal/agent/stream"
	"banger/internal/agent/transcript"
	"banger/internal/frame"
)

// A command that its policy starts again waits before: firstPause, then twice as long each time, up to lastPause. After
// a run that lasted healthy, it begins anew.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = time.Minute
	healthy    = 10 * time.Second
)

// session is one session. Its goroutine, run, ends with it.
type session struct {
	m      *Manager
	store  *store
	log    *transcript.Transcript
	watch  *probe.Watch   // nil without a ready probe
	screen *screen.Screen // nil without a terminal, and for one that has ended at an earlier boot
	quit   chan struct{}  // closed when the command must not start again
	over   chan struct{}  // closed when the session has ended for good

	mu       sync.Mutex
	info     banger.Session // without positions; Lost is that of earlier boots
	resume   bool           // the next boot of the guest starts it again
	running  *command.Process
	last     *command.Process // what has run last; nil after a later boot
	quitting bool             // quit is closed
	typist   *client          // the client that has typed or attached last
}

func (s *session) process() *command.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

func (s *session) isOver() bool {
	select {
	case <-s.over:
		return true
	default:
		return false
	}
}

func (s *session) notRunning() error {
	return banger.Errorf(banger.CodeConflict, "the command of the session %s does not run now", s.info.Name).
		WithHint("see: banger session ls VM")
}

// describe returns the session as clients see it.
func (s *session) describe() banger.Session {
	first, end, lost := s.log.First(), s.log.End(), s.log.Lost()
	s.mu.Lock()
	defer s.mu.Unlock()
	info := s.info
	info.First, info.End, info.Lost = first, end, info.Lost+lost
	if s.watch != nil {
		seen, _ := s.watch.State()
		info.Readiness = &seen
	}
	info.Command.Env = slices.Clone(info.Command.Env)
	for i, kv := range info.Command.Env {
		key, _, _ := strings.Cut(kv, "=")
		info.Command.Env[i] = key + "=" + banger.HiddenValue
	}
	return info
}

// startCommand starts the session's command.
func (s *session) startCommand() (*command.Process, error) {
	s.mu.Lock()
	e := s.info.Command
	if s.typist != nil && s.typist.rows > 0 {
		e.Rows, e.Cols = s.typist.rows, s.typist.cols
	}
	s.mu.Unlock()
	return s.m.start(&e, command.Options{Group: "session-" + s.info.Name})
}

// began notes that the command runs.
func (s *session) began(p *command.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running, s.last = p, p
	s.info.State, s.info.PID, s.info.Reason = banger.SessionRunning, p.PID(), ""
	s.info.Started = time.Now().UTC()
	s.changed()
}

// save stores what is known of the session. s.mu is held.
func (s *session) save() {
	now := stored{Session: s.info, Resume: s.resume}
	now.Lost += s.log.Lost()
	if err := s.store.save(now); err != nil {
		console.Warn(fmt.Errorf("storing the session %s: %w", s.info.Name, err))
	}
	s.changed()
}

// run follows the command p, and starts it again as the policy says, until the session has ended. p is nil if the
// command is to be started first.
func (s *session) run(p *command.Process) {
	pause := firstPause
	for again := true; again; {
		if p == nil {
			var err error
			if p, err = s.startCommand(); err != nil {
				again = s.failed(err) && s.wait(pause)
				pause = min(2*pause, lastPause)
				continue
			}
			s.began(p)
		}
		began := time.Now()
		stop := s.watchReady()
		s.follow(p)
		stop()
		if time.Since(began) >= healthy {
			pause = firstPause
		}
		again = s.ended(p) && s.wait(pause)
		pause = min(2*pause, lastPause)
		p = nil
	}
	s.finish()
}

// wait waits for a time. It returns false if the session is to end before.
func (s *session) wait(pause time.Duration) bool {
	select {
	case <-time.After(pause):
		return true
	case <-s.quit:
		return false
	}
}

// watchReady tries the ready probe until stop is called.
func (s *session) watchReady() (stop func()) {
	if s.watch == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with stop
		s.watch.Follow(ctx)
		close(done)
	}()
	return func() { cancel(); <-done }
}

// tryCommand runs a command of the ready probe, as the session's command runs.
func (s *session) tryCommand(ctx context.Context, args []string) (banger.Exit, string, error) {
	e := s.info.Command
	e.Args, e.TTY, e.Stdin = args, false, false
	return stream.Try(ctx, s.m.start, e)
}

// follow stores what the command writes until it and its output have ended.
func (s *session) follow(p *command.Process) {
	stream.Each(p, func(out io.Reader, t frame.Type) {
		stream.Pieces(out, transcript.Head, func(buf []byte) {
			end := s.log.Append(t, time.Now(), buf)
			if s.screen != nil {
				s.screen.Append(buf[transcript.Head:], end)
			}
		})
	})
}

// ended notes how the command has ended, and reports whether it is to start again.
func (s *session) ended(p *command.Process) (again bool) {
	peak := p.PeakMemory()
	p.Close()
	exit := p.Exit()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = nil
	s.info.Exit, s.info.PID, s.info.Ended = &exit, 0, time.Now().UTC()
	s.info.PeakMemory = max(s.info.PeakMemory, peak)
	s.info.Reason = ""
	return s.startsAgain(exit != banger.Exit{})
}

// failed notes that the command did not start again, and reports whether that is to be tried again.
func (s *session) failed(err error) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.info.Reason = "it could not start again: " + err.Error()
	s.info.Ended = time.Now().UTC()
	return s.startsAgain(true)
}

// startsAgain decides by the policy whether a run follows one that has ended. s.mu is held.
func (s *session) startsAgain(badly bool) bool {
	policy := s.info.Restart
	again := !s.quitting && (policy.Name == banger.RestartAlways || policy.Name == banger.RestartOnFailure && badly)
	if again && policy.Max > 0 && s.info.Restarts >= policy.Max {
		again = false
		s.info.Reason = fmt.Sprintf("it was started again %d times, as often as its policy allows", policy.Max)
	}
	if again {
		s.info.State = banger.SessionWaiting
		s.info.Restarts++
		s.save()
	}
	return again
}

// finish ends the session for good.
func (s *session) finish() {
	if err := s.log.Close(); err != nil {
		console.Warn(fmt.Errorf("storing the output of the session %s: %w", s.info.Name, err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.info.State = banger.SessionEnded
	s.save()
	close(s.over)
}

// end ends the session for good, as Manager.Stop describes.
func (s *session) end(grace time.Duration) {
	s.mu.Lock()
	s.resume = false
	s.info.Reason = ""
	s.mu.Unlock()
	s.quitWithin(grace, forEver)
}

// shutDown ends the session because the guest ends.
func (s *session) shutDown(grace time.Duration) {
	if s.isOver() {
		return
	}
	ended := s.quitWithin(grace, stubborn)
	s.log.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.info.Reason = "the VM was stopped"
	if ended {
		s.save()
	}
}

// stubborn is how long a shutdown, or a removal, waits for commands that were killed.
const stubborn = 2 * time.Second

// forEver is more than any process takes to end.
const forEver = 100 * 365 * 24 * time.Hour

// quitWithin ends the command, which does not start again, and returns true when the session has ended. It returns
// false when the command does not end within patience after it was killed.
func (s *session) quitWithin(grace, patience time.Duration) bool {
	s.mu.Lock()
	if !s.quitting {
		s.quitting = true
		close(s.quit)
	}
	p := s.running
	s.mu.Unlock()
	if p != nil && grace > 0 {
		p.Signal(syscall.SIGTERM)
		if s.info.Command.TTY { // a shell in a terminal does not end by SIGTERM
			p.Signal(syscall.SIGHUP)
			p.Signal(syscall.SIGCONT)
		}
		select {
		case <-s.over:
		case <-time.After(grace):
		}
	}
	for late := time.Now().Add(patience); !s.isOver(); { // a command that just starts is killed as soon as it runs
		if time.Now().After(late) {
			return false
		}
		if p := s.process(); p != nil {
			p.KillAll()
		}
		select {
		case <-s.over:
		case <-time.After(50 * time.Millisecond):
		}
	}
	return true
}

// remove removes the session, which has ended, with all its files. What its command has left behind is killed.
func (s *session) remove() error {
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	if last != nil {
		last.KillLeft(stubborn)
	}
	if s.screen != nil {
		s.screen.Close()
	}
	if err := s.log.Remove(); err != nil {
		return err
	}
	return s.store.remove()
}
