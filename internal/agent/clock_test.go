package agent

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"banger/internal/frame"
	"banger/internal/guest"
)

// clockSystem records the corrections of a clock.
type clockSystem struct {
	*hostSystem
	got []guest.Correction
	err error
}

func (d *clockSystem) CorrectClock(c guest.Correction) error {
	d.got = append(d.got, c)
	return d.err
}

// TestACorrectionIsOfWhatWasRead: what was measured before the clock was set is not made.
func TestACorrectionIsOfWhatWasRead(t *testing.T) {
	d := &clockSystem{hostSystem: newHostSystem()}
	s := newServer(d, nil)
	client := guest.Client{Dial: func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go s.handle(guest.AgentPort, theirs)
		return ours, nil
	}}
	behind, err := client.SyncClock(t.Context(), true)
	if err != nil || len(d.got) != 1 || !d.got[0].Now || d.got[0].After != 0 || behind.Abs() > time.Second {
		t.Fatalf("it was corrected by %+v, %s, %v", d.got, behind, err)
	}
	for _, set := range []func() error{
		func() error { return s.configure(&guest.Config{Hostname: "x"}) },
		func() error { return s.restored(&guest.Config{Seed: make([]byte, guest.MinSeed)}) },
	} {
		before := s.clockSets
		if err := set(); err != nil || s.clockSets != before+1 {
			t.Errorf("the clock was set %d times, and before %d times, %v", s.clockSets, before, err)
		}
	}
	ours, theirs := net.Pipe()
	go func() { // one answer
		defer theirs.Close()
		s.clock(theirs, &guest.Correction{OffsetNanos: 1, After: 1})
	}()
	if typ, _, err := frame.NewReader(ours).Next(); typ != frame.Response || err != nil || len(d.got) != 1 {
		t.Errorf("frame %d, %v, after %+v", typ, err, d.got)
	}
	d.err = errors.New("the test wants none")
	if _, err := client.SyncClock(t.Context(), true); err == nil {
		t.Error("a correction that fails is not told")
	}
}
