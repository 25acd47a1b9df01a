package boot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/agent/console"
	"banger/internal/guest"
)

// Init is the guest of an agent that is PID 1. Start returns one.
type Init struct{ machine }

// Configure sets the guest up, and then calls prepared.
func (i *Init) Configure(c guest.Config, prepared func()) error {
	err := i.start(c)
	if err == nil {
		prepared()
	}
	return err
}

// Ready returns nil: this process is the init, and obeys commands.
func (i *Init) Ready(context.Context) error { return nil }

// Shutdown ends all programs, makes the disks clean and ends the guest. Programs have
// grace to end by SIGTERM. Shutdown does not return.
func (i *Init) Shutdown(grace time.Duration, how Ending) {
	unix.Kill(-1, unix.SIGTERM)
	awaitNoProcesses(grace)
	unix.Kill(-1, unix.SIGKILL)
	awaitNoProcesses(2 * time.Second)
	unix.Sync()
	unix.Unmount("/var/lib/docker", unix.MNT_DETACH)
	unix.Unmount("/var/lib/containerd", unix.MNT_DETACH)
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		console.Warn(fmt.Errorf("making / read-only: %w", err))
	}
	if err := unix.Mount("", procPath(i.disk), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		console.Warn(fmt.Errorf("making the disk clean: %w", err))
	}
	how.Now()
}

// awaitNoProcesses returns when only this process and kernel threads are left,
// or the limit has passed.
func awaitNoProcesses(limit time.Duration) {
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) && otherProcesses() {
		time.Sleep(10 * time.Millisecond) // the reaper waits for the processes; there is no event for "none left"
	}
}

func otherProcesses() bool {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	for _, e := range entries {
		if c := e.Name()[0]; c < '0' || c > '9' || e.Name() == "1" {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		// Kernel threads descend from kthreadd, pid 2 (proc(5): pid (comm) state ppid).
		_, rest, ok := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		if ok && len(fields) > 1 && e.Name() != "2" && fields[1] != "2" && fields[0] != "Z" {
			return true
		}
	}
	return false
}
