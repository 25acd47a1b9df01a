package parking

import (
	"slices"
	"time"
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
