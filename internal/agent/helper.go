package agent

import (
	"context"
	"errors"
	"time"

	"banger/internal/agent/boot"
	"banger/internal/guest"
)

// helper is a guest that compares the disks of other VMs. It has no disk and no network of its own.
type helper struct{ disks map[string]string } // their directories by their names

// Trees implements comparer.
func (h helper) Trees() (image, before, after string) {
	if dir, ok := h.disks[guest.CompareBefore]; ok {
		before = dir + "/upper"
	}
	return h.disks["rootfs"], before, h.disks[guest.CompareAfter] + "/upper"
}

// errHelper means that a helper does nothing but compare.
var errHelper = errors.New("this guest only compares disks")

func (helper) Configure(guest.Config, func()) error     { return nil }
func (helper) Restore(before, after guest.Config) error { return errHelper }
func (helper) Ready(context.Context) error              { return nil }
func (helper) CorrectClock(guest.Correction) error      { return nil }
func (helper) Disk() string                             { return "" }
func (helper) Freeze(context.Context) error             { return errHelper }
func (helper) Thaw()                                    {}

func (helper) Shutdown(_ time.Duration, how boot.Ending) { how.Now() }
