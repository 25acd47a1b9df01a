package guest

import (
	"context"
	"time"

	"banger/internal/frame"
)

// Correction says how far a guest's clock is behind the host's (docs/adr/0030).
type Correction struct {
	OffsetNanos int64 `json:"offset_ns"`
	// After is the Info.ClockSets of the measured answer. If the clock was set since then, the agent ignores the
	// correction.
	After int64 `json:"after"`
	// Now asks for a correction in one step, as after a boot or a pause. Without it, a small offset is corrected slowly.
	Now bool `json:"now,omitempty"`
}

// Offset returns OffsetNanos as a duration.
func (c Correction) Offset() time.Duration { return time.Duration(c.OffsetNanos) }

// The clock is read up to clockTries times, until an answer arrives within goodDelay. Such a reading is wrong by at
// most half of that.
const (
	clockTries = 8
	goodDelay  = 4 * time.Millisecond
)

// reading is one reading of a guest's clock.
type reading struct {
	offset time.Duration // from the guest's clock to the host's
	delay  time.Duration // time until the answer arrived
	sets   int64
}

// read returns the reading of a clock that was read between sent and received, most probably in the middle.
func read(sent, received time.Time, info Info) reading {
	delay := received.Sub(sent)
	offset := sent.Add(delay / 2).Round(0).Sub(time.Unix(0, info.TimeUnixNano))
	return reading{offset: offset, delay: delay, sets: info.ClockSets}
}

// SyncClock sets the guest's clock from the host's, at once or, if now is false and the offset is small, slowly. It
// returns how far the guest's clock was behind. Of two calls at the same time, only one corrects the clock.
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
	if !now && best.offset.Abs() <= best.delay/2 { // the offset may be only an effect of the delay
		return best.offset, nil
	}
	correction := Correction{OffsetNanos: best.offset.Nanoseconds(), After: best.sets, Now: now}
	_, err = c.call(ctx, Request{Op: OpClock, Clock: &correction})
	return best.offset, err
}

// readClock reads the guest's clock. It connects before it takes the time.
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
	if err := answer(ctx, conn, frame.Response, &info); err != nil {
		return reading{}, err
	}
	return read(sent, time.Now(), info), nil
}
