package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/agent/boot"
	"banger/internal/agent/workspace"
	"banger/internal/guest"
)

// helper is a guest that reads the disks of other VMs. It has no disk and no network of its own.
type helper struct{ disks map[string]string } // as boot.PrepareHelper returns them

// Trees implements comparer.
func (h helper) Trees() (image, before, after string) {
	if dir, ok := h.disks[guest.CompareBefore]; ok {
		before = dir + "/upper"
	}
	return h.disks["rootfs"], before, h.disks[guest.CompareAfter] + "/upper"
}

// Workspaces returns the workspaces of the VM whose disk comes after.
func (h helper) Workspaces() workspace.Still {
	return workspace.Still{Dir: workspacesOn(h.disks[guest.CompareAfter]), Load: h.modprobe}
}

// modprobe loads a module of the kernel. The disk with the modules is mounted when one is needed.
func (h helper) modprobe(name string) error {
	if device := h.disks["modules"]; device != "" {
		dir := "/lib/modules/" + boot.KernelRelease()
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		const flags = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC
		err := unix.Mount(device, dir, "ext4", flags, "")
		if err != nil && !errors.Is(err, unix.EBUSY) { // it is mounted there
			return fmt.Errorf("mounting the kernel's modules: %w", err)
		}
	}
	return boot.Modprobe(name)
}

// errHelper means that a helper does nothing but read disks.
var errHelper = errors.New("this guest only reads disks")

func (helper) Configure(guest.Config, func()) error     { return nil }
func (helper) Restore(before, after guest.Config) error { return errHelper }
func (helper) Ready(context.Context) error              { return nil }
func (helper) CorrectClock(guest.Correction) error      { return nil }
func (helper) Disk() string                             { return "" }
func (helper) Freeze(context.Context) error             { return errHelper }
func (helper) Thaw()                                    {}

func (helper) Shutdown(_ time.Duration, how boot.Ending) { how.Now() }
