package agent

import (
	"context"
	"os"
	"syscall"
	"time"

	"banger/internal/agent/boot"
	"banger/internal/agent/command"
	"banger/internal/agent/freezer"
	"banger/internal/guest"
)

// system is the guest to which the agent belongs. Its kinds differ: boot.Init if the
// agent is PID 1, boot.Resident beside the image's init, hostSystem in a test.
type system interface {
	// Configure sets the guest up for its VM. It calls prepared before the image's init or another program goes on.
	Configure(c guest.Config, prepared func()) error
	// Restore is called when the guest, which had the configuration before, goes on from a snapshot.
	Restore(before, after guest.Config) error
	// Ready returns nil when the guest's init obeys commands, and an error when ctx ends
	// before.
	Ready(context.Context) error
	// CorrectClock changes the clock.
	CorrectClock(guest.Correction) error
	// Disk returns the path of the VM's own disk, or "" without one. What differs from the image is in its
	// directory upper, as overlayfs writes it.
	Disk() string
	// Freeze writes the disks and stops all processes but the agent. If it fails, all go on. It gives up when ctx ends.
	Freeze(context.Context) error
	// Thaw lets the processes go on that Freeze has stopped.
	Thaw()
	// Shutdown ends the guest, once the main command was signalled. In a real guest it
	// does not return.
	Shutdown(grace time.Duration, how boot.Ending)
}

// RebootCode is the exit code of an agent in a test whose guest reboots.
const RebootCode = 64

// hostSystem stands for a guest in a test, where the agent runs on the host and
// changes nothing of it.
type hostSystem struct {
	freezer *freezer.Freezer
	main    func() *command.Process // returns the main command, or nil; nil itself if none can run
}

// newHostSystem returns such a guest without a main command.
func newHostSystem() *hostSystem { return &hostSystem{freezer: freezer.Below()} }

func (*hostSystem) Configure(_ guest.Config, prepared func()) error {
	prepared()
	return nil
}

func (*hostSystem) Restore(before, after guest.Config) error { return nil }

// Ready waits in vain: no init belongs to a test.
func (*hostSystem) Ready(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (*hostSystem) CorrectClock(guest.Correction) error { return nil }

// diskVariable names the directory that stands for the disk of a guest in a test.
const diskVariable = "BANGER_TEST_DISK"

func (*hostSystem) Disk() string { return os.Getenv(diskVariable) }

// Freeze stops what the agent has started.
func (h *hostSystem) Freeze(context.Context) error { return h.freezer.Freeze(boot.FreezeTime) }

// Thaw lets that go on.
func (h *hostSystem) Thaw() { h.freezer.Thaw() }

// Shutdown kills the main command if it does not end within grace, and ends this
// process.
func (h *hostSystem) Shutdown(grace time.Duration, how boot.Ending) {
	if main := h.main(); main != nil {
		select {
		case <-main.Done():
		case <-time.After(grace):
			main.Signal(syscall.SIGKILL)
		}
	}
	if how == boot.GuestReboots {
		os.Exit(RebootCode)
	}
	os.Exit(0)
}
