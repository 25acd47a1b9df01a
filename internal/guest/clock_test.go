package guest

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"banger/internal/testing/processtest"

	"banger"
	"banger/internal/frame"
)

func TestAClockIsReadInTheMiddle(t *testing.T) {
	sent := time.Unix(1_800_000_000, 123)
	for name, tt := range map[string]struct {
		took, behind time.Duration
	}{
		"at once": {0, 0}, "right": {10 * time.Millisecond, 0}, "behind": {10 * time.Millisecond, 3 * time.Second},
		"ahead": {7 * time.Second, -time.Hour}, "far ahead": {time.Millisecond, -200 * 365 * 24 * time.Hour},
	} {
		shown := sent.Add(tt.took / 2).Add(-tt.behind)
		r := read(sent, sent.Add(tt.took), Info{TimeUnixNano: shown.UnixNano(), ClockSets: 4})
		if r != (reading{tt.behind, tt.took, 4}) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := read(sent, sent, Info{TimeUnixNano: -1 << 63}); r.offset != 1<<63-1 {
		t.Errorf("an offset beyond all bounds is %s", r.offset)
	}
}

// clockAgent is an agent whose clock is behind. Its first answers are late.
type clockAgent struct {
	mu     sync.Mutex
	behind time.Duration
	sets   int64
	late   int           // number of late answers
	delay  time.Duration // how late they are
	got    []Correction
}

func (a *clockAgent) answer(r Request, conn net.Conn) {
	if r.Op != OpClock {
		frame.WriteJSON(conn, frame.Error, banger.Errorf(banger.CodeInvalid, "asked to %s", r.Op))
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Clock != nil {
		if a.got = append(a.got, *r.Clock); r.Clock.After == a.sets {
			a.behind -= r.Clock.Offset()
			a.sets++
		}
	}
	info := Info{ClockSets: a.sets, TimeUnixNano: time.Now().Add(-a.behind).UnixNano()}
	if a.late > 0 {
		a.late--
		time.Sleep(a.delay) // the tested case: the way back takes longer than the way there
	}
	frame.WriteJSON(conn, frame.Response, info)
}

func TestAClockIsBroughtToTheHosts(t *testing.T) {
	for name, tt := range map[string]struct {
		behind time.Duration
		late   int
		now    bool
		want   int // number of corrections
	}{
		"after a boot":                     {3 * time.Second, 0, true, 1},
		"and a small offset too":           {time.Microsecond, 0, true, 1},
		"on a busy host":                   {3 * time.Second, clockTries - 1, true, 1},
		"each minute":                      {200 * time.Millisecond, 0, false, 1},
		"it is ahead":                      {-time.Hour, 0, false, 1},
		"what is measured may be nothing":  {0, clockTries, false, 0},
		"nothing to do, after a long wait": {0, clockTries, true, 1},
	} {
		a := &clockAgent{behind: tt.behind, late: tt.late, delay: 100 * time.Millisecond}
		off, err := fakeAgent(t, a.answer).SyncClock(processtest.WithPatience(t), tt.now)
		limit := 30 * time.Millisecond // for a loopback on a busy host
		if tt.late == clockTries {
			limit += a.delay / 2
		}
		corrected := len(a.got) == tt.want && (tt.want == 0 || a.behind.Abs() <= limit && a.got[0].Now == tt.now)
		if err != nil || (off-tt.behind).Abs() > limit || !corrected {
			t.Errorf("%s: it was behind by %s, and is by %s after %+v, %v", name, off, a.behind, a.got, err)
		}
	}
}

// TestTwoCorrectionsOfOneOffset: the agent ignores the second one.
func TestTwoCorrectionsOfOneOffset(t *testing.T) {
	a := &clockAgent{behind: time.Hour}
	c := fakeAgent(t, a.answer)
	r, err := c.readClock(processtest.WithPatience(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.SyncClock(processtest.WithPatience(t), true); err != nil {
		t.Fatal(err)
	}
	again := Request{Op: OpClock, Clock: &Correction{OffsetNanos: r.offset.Nanoseconds(), After: r.sets}}
	if _, err := c.call(processtest.WithPatience(t), again); err != nil || a.behind.Abs() > time.Minute {
		t.Errorf("it is behind by %s, %v", a.behind, err)
	}
}

// TestAnOldAgentHasNoClock: it does not know the operation and returns an error.
func TestAnOldAgentHasNoClock(t *testing.T) {
	c := fakeAgent(t, func(r Request, conn net.Conn) {
		unknown := &banger.Error{Code: banger.CodeInvalid, Message: "the agent knows no operation"}
		frame.WriteJSON(conn, frame.Error, unknown)
	})
	if _, err := c.SyncClock(processtest.WithPatience(t), true); banger.CodeOf(err) != banger.CodeInvalid {
		t.Errorf("the error is %v", err)
	}
}

// TestTheTimeOfABoot: a configuration that waits for the guest contains the time at which the guest reads it.
func TestTheTimeOfABoot(t *testing.T) {
	var up time.Time
	told := make(chan int64, 1)
	c := fakeAgent(t, func(r Request, conn net.Conn) {
		told <- r.Config.TimeUnixNano
		frame.WriteJSON(conn, frame.Response, Info{Version: Version})
	})
	dial := c.Dial
	c.Dial = func(ctx context.Context) (net.Conn, error) { // the guest boots until this time
		up = time.Now()
		return dial(ctx)
	}
	cfg := Config{Hostname: "box"}
	if _, err := c.Configure(processtest.WithPatience(t), cfg); err != nil {
		t.Fatal(err)
	}
	if at := <-told; at < up.UnixNano() || at > time.Now().UnixNano() || cfg.TimeUnixNano != 0 {
		t.Errorf("it was told %d, and up at %d", at, up.UnixNano())
	}
}
