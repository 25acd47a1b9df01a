package parking

import (
	"fmt"
	"slices"
	"time"

	"banger"
)

// A guest may reboot MaxReboots times within RebootWindow. After that it stays stopped, because it would probably
// reboot forever.
const (
	MaxReboots   = 5
	RebootWindow = time.Minute
)

// Reboots are the times of the latest reboots of a guest.
type Reboots []time.Time

// May reports whether the guest may reboot now, and counts the reboot.
func (r *Reboots) May(now time.Time) bool {
	*r = slices.DeleteFunc(*r, func(t time.Time) bool { return now.Sub(t) >= RebootWindow })
	if len(*r) >= MaxReboots {
		return false
	}
	*r = append(*r, now)
	return true
}

// ExitReason says how a main command has ended, as the reason of its VM.
func ExitReason(e banger.Exit) string {
	if e.Signal != 0 {
		return fmt.Sprintf("main command was killed by signal %d", e.Signal)
	}
	return fmt.Sprintf("main command exited with code %d", e.Code)
}
