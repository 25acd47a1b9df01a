package cli

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"banger"
)

// silence watches a VM while this client waits for something that runs in it, and says when the VM's agent does not
// answer any more, and when it answers again. A command may be silent for days, so what it sends only saves questions.
// A nil one watches nothing.
type silence struct {
	vm   string                      // as the user calls it
	ends string                      // what ends this client
	ping func(context.Context) error // asks the agent something; it ends by itself
	w    io.Writer                   // for the user

	began  time.Time
	last   atomic.Int64  // when something came last from the VM, in ns after that
	silent atomic.Bool   // the user was told
	heard  chan struct{} // holds one when something came after that
}

const (
	// pingEvery is how long nothing comes from a VM before its agent is asked, and asked again.
	pingEvery = 15 * time.Second
	// pingAgain is how soon it is asked again when it has not answered.
	pingAgain = time.Second
	// silenceTime is how long it does not answer before the user is told.
	silenceTime = 30 * time.Second
)

func newSilence(vm, ends string, ping func(context.Context) error, w io.Writer) *silence {
	return &silence{vm: vm, ends: ends, ping: ping, w: w, began: time.Now(), heard: make(chan struct{}, 1)}
}

// hear notes that something came from the VM.
func (s *silence) hear() {
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

// told reports whether the user was told that the VM is silent.
func (s *silence) told() bool { return s != nil && s.silent.Load() }

// start begins to watch; what it returns ends that.
func (s *silence) start(ctx context.Context) (stop func()) {
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

// lastHeard is when something came last from the VM, or when the watch began.
func (s *silence) lastHeard() time.Time { return s.began.Add(time.Duration(s.last.Load())) }

// watch returns when ctx ends.
func (s *silence) watch(ctx context.Context) {
	var since time.Time // of the first question without an answer; zero: there is none
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
		} // else nothing is known of the agent: there is no daemon, or the VM is paused
	}
}

// ask asks the agent, until it answers or anything else comes from the VM.
func (s *silence) ask(ctx context.Context) error {
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
func (s *silence) tell(silent bool) {
	if s.silent.Swap(silent) == silent {
		return
	}
	text := fmt.Sprintf("%s answers again", s.vm)
	if silent {
		text = fmt.Sprintf("%s has not answered for %.0f s (its VM may be frozen; %s, \"banger stop %s\" ends the VM)",
			s.vm, silenceTime.Seconds(), s.ends, s.vm)
	}
	end := "\n"
	if isTerminal(s.w) {
		end = "\r\n"
	}
	io.WriteString(s.w, "banger: "+text+end)
}
