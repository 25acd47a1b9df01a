package guest

import (
	"context"
	"time"

	"banger"
)

// Correction says how far a guest's clock is behind the host's (docs/adr/0030).
type Correction struct {
	OffsetNanos int64 `json:"offset_ns"`
	// After is the Info.ClockSets of the answer that was measured. If the clock was set since then, nothing is done.
	After int64 `json:"after"`
	// Now asks for the right time at once, as after a boot or a pause. Without it a small
	// offset is made up for slowly.
	Now bool `json:"now,omitempty"`
}

// Offset is OffsetNanos.
func (c Correction) Offset() time.Duration { return time.Duration(c.OffsetNanos) }

// A question about the clock is asked again, clockTries times in all, until an answer came within goodDelay: it
// cannot be wrong by more than half of that.
const (
	clockTries = 8
	goodDelay  = 4 * time.Millisecond
)

// reading is what a guest's clock showed.
type reading struct {
	offset time.Duration // from the guest's clock to the host's
	delay  time.Duration // how long the answer took
	sets   int64
}

// read is a reading of a clock that was read at some time between sent and received: most probably in the middle.
func read(sent, received time.Time, info Info) reading {
	delay := received.Sub(sent)
	offset := sent.Add(delay / 2).Round(0).Sub(time.Unix(0, info.TimeUnixNano))
	return reading{offset: offset, delay: delay, sets: info.ClockSets}
}

// SyncClock brings the guest's clock to the host's, at once or, if now is false and the offset is small, slowly. It
// returns how far the guest's clock was behind. Of two that run at once one corrects it.
func (c Client) SyncClock(ctx context.Context, now bool) (time.Duration, error) {
	best, err := c.readClock(ctx)
	for range clockTries - 1 {
		if err != nil || best.delay <= goodDelay {
			break
		}
		var next reading
		if next, err = c.readClock(ctx); next.delay < best.delay {
			best = next
		}
	}
	if err != nil {
		return 0, err
	}
	if !now && best.offset.Abs() <= best.delay/2 { // what was measured may be the delay alone
		return best.offset, nil
	}
	correction := Correction{OffsetNanos: best.offset.Nanoseconds(), After: best.sets, Now: now}
	_, err = c.call(ctx, Request{Op: OpClock, Clock: &correction})
	return best.offset, err
}

// readClock asks what the guest's clock shows. The connection is there before the time is taken.
func (c Client) readClock(ctx context.Context) (reading, error) {
	conn, err := c.Dial(ctx)
	if err != nil {
		return reading{}, err
	}
	sent := time.Now()
	if conn, err = sendOn(ctx, conn, Request{Op: OpClock}); err != nil {
		return reading{}, err
	}
	var info Info
	if err := answer(ctx, conn, banger.FrameResponse, &info); err != nil {
		return reading{}, err
	}
	return read(sent, time.Now(), info), nil
}
