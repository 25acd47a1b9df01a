package session

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"banger/internal/cli/render"

	"banger"
)

// Silence watches a VM while this client waits for something that runs in the VM. It tells the user when the VM's
// agent stops answering, and when it answers again. A command may be silent for days, so output of the command is not
// required; it only makes questions to the agent unnecessary. A nil Silence watches nothing.
type Silence struct {
	vm   string                      // the name that the user gave
	ends string                      // text that says how the user can end this client
	ping func(context.Context) error // sends the agent a request; it returns after some time in any case
	w    io.Writer                   // for messages to the user

	began  time.Time
	last   atomic.Int64  // time of the last data from the VM, in ns after began
	silent atomic.Bool   // the user was told that the VM is silent
	heard  chan struct{} // holds a value if data came after that
}

const (
	// pingEvery is the time without data from a VM after which its agent is asked, and the interval of later questions.
	pingEvery = 15 * time.Second
	// pingAgain is the pause before the next question after one without an answer.
	pingAgain = time.Second
	// silenceTime is the time without an answer after which the user is told.
	silenceTime = 30 * time.Second
)

// NewSilence returns a watch of the VM vm that writes to w. ends says how the user can end this client, and ping sends
// the VM's agent a request.
func NewSilence(vm, ends string, ping func(context.Context) error, w io.Writer) *Silence {
	return &Silence{vm: vm, ends: ends, ping: ping, w: w, began: time.Now(), heard: make(chan struct{}, 1)}
}

// Hear notes that data came from the VM.
func (s *Silence) Hear() {
	if s == nil {
		return
	}
	s.last.Store(int64(time.Since(s.began)))
	if s.silent.Load() {
		select {
		case s.heard <- struct{}{}:
		default:
		}
	}
}

// warned reports whether the user was told that the VM is silent.
func (s *Silence) warned() bool { return s != nil && s.silent.Load() }

// Start begins to watch. stop ends the watch.
func (s *Silence) Start(ctx context.Context) (stop func()) {
	if s == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() { // ends with ctx
		s.watch(ctx)
		close(over)
	}()
	return func() {
		cancel()
		<-over
	}
}

// lastHeard returns the time of the last data from the VM, or the start of the watch if none came.
func (s *Silence) lastHeard() time.Time { return s.began.Add(time.Duration(s.last.Load())) }

// watch watches the VM until ctx ends.
func (s *Silence) watch(ctx context.Context) {
	var since time.Time // time of the first question without an answer; zero if there is none
	wait := pingEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.heard:
		case <-time.After(wait):
		}
		asked, err := time.Now(), error(nil)
		wait = pingEvery - asked.Sub(s.lastHeard())
		if wait <= 0 {
			wait, err = pingEvery, s.ask(ctx)
		}
		switch code := banger.CodeOf(err); {
		case ctx.Err() != nil:
			return
		case err == nil || s.lastHeard().After(asked):
			since = time.Time{}
			s.tell(false)
		case code == banger.CodeTimeout || code == banger.CodeGuest:
			if since.IsZero() {
				since = asked
			}
			wait = pingAgain
			if time.Since(since) >= silenceTime {
				s.tell(true)
			}
		} // otherwise the state of the agent is unknown: the daemon does not run, or the VM is paused
	}
}

// ask sends the agent a request and waits until the agent answers or other data comes from the VM.
func (s *Silence) ask(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answered := make(chan error, 1)
	go func() { answered <- s.ping(ctx) }() // ends with ctx
	select {
	case err := <-answered:
		return err
	case <-s.heard:
		return nil
	}
}

// tell tells the user of a change. The terminal may be raw.
func (s *Silence) tell(silent bool) {
	if s.silent.Swap(silent) == silent {
		return
	}
	text := fmt.Sprintf("%s answers again", s.vm)
	if silent {
		text = fmt.Sprintf("%s has not answered for %.0f s (its VM may be frozen; %s, \"banger stop %s\" ends the VM)",
			s.vm, silenceTime.Seconds(), s.ends, s.vm)
	}
	end := "\n"
	if render.IsTerminal(s.w) {
		end = "\r\n"
	}
	io.WriteString(s.w, "banger: "+text+end)
}
