package boot

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// maxSlew is the offset above which a clock is set, even if the guest keeps it itself. The kernel makes up for 0.5 ms
// in a second (adjtime(3)), so a whole second would take more than half an hour.
const maxSlew = time.Second

// adjustment is what is done to a clock.
type adjustment string

const (
	leave adjustment = "leave" // nothing
	slew  adjustment = "slew"  // let it go faster or slower for a while
	step  adjustment = "step"  // set it
)

// adjust decides what is done to a clock that is off. kept means that a program in the guest, such as chrony or
// systemd-timesyncd, keeps the clock by a source of its own, which small corrections must not fight.
func adjust(c guest.Correction, kept bool) adjustment {
	switch {
	case c.Offset().Abs() > maxSlew:
		return step
	case kept:
		return leave
	case c.Now:
		return step
	}
	return slew
}

// correctClock changes the clock as adjust decides.
func correctClock(c guest.Correction) error {
	var now unix.Timex // without a mode the call only reads
	if _, err := unix.Adjtimex(&now); err != nil {
		return fmt.Errorf("reading the clock's state: %w", err)
	}
	change, what := unix.Timex{}, adjust(c, now.Status&unix.STA_UNSYNC == 0)
	switch micros := c.Offset().Microseconds(); what {
	case leave:
		return nil
	case slew:
		change.Modes, change.Offset = unix.ADJ_OFFSET_SINGLESHOT, micros
	case step:
		change.Modes, change.Time.Sec, change.Time.Usec = unix.ADJ_SETOFFSET, micros/1e6, micros%1e6
		if change.Time.Usec < 0 { // adjtimex(2): never negative
			change.Time.Sec, change.Time.Usec = change.Time.Sec-1, change.Time.Usec+1e6
		}
	}
	if _, err := unix.Adjtimex(&change); err != nil {
		return fmt.Errorf("correcting the clock by %s (%s): %w", c.Offset(), what, err)
	}
	return nil
}
