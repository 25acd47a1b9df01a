// Package freezer stops the processes of a guest and lets them go on, so that no program runs before the guest is ready
// for it. The agent runs on, and so do the kernel's threads and the helpers that the kernel starts.
//
// The package must not know why the guest is frozen, nor what its processes are.
package freezer

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/agent/console"
)

// Hierarchy is where the control groups of version 2 are mounted in a guest.
const Hierarchy = "/sys/fs/cgroup"

// Freezer freezes control groups or, in a guest that has none of version 2, stops processes by SIGSTOP.
type Freezer struct {
	mu     sync.Mutex
	groups *groups // nil: the guest has no control groups of version 2
	stops  stops
}

// Open returns the freezer of all processes but this one. The hierarchy stays reachable when something is mounted over
// it.
func Open(hierarchy string) *Freezer {
	f := &Freezer{stops: stops{of: func(p process) bool { return p.pid != 1 && p.pid != os.Getpid() }}}
	var st unix.Statfs_t
	if unix.Statfs(hierarchy, &st) != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		return f
	}
	root, err := os.OpenRoot(hierarchy)
	if err != nil {
		console.Warn(fmt.Errorf("processes are stopped one by one: %w", err))
		return f
	}
	f.groups = &groups{root: root, self: os.Getpid(), home: homeOf}
	return f
}

// Below returns a freezer of the processes that descend from this one. It uses SIGSTOP.
func Below() *Freezer {
	return &Freezer{stops: stops{of: func(p process) bool { return p.descendsFrom(os.Getpid()) }}}
}

// Freeze stops all processes within limit. If it fails, it lets all of them go on.
func (f *Freezer) Freeze(limit time.Duration) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	deadline := time.Now().Add(limit)
	if f.groups != nil {
		err = f.groups.freeze(deadline)
	} else {
		err = f.stops.stop(deadline)
	}
	if err != nil {
		f.thaw()
	}
	return err
}

// Thaw lets the processes go on that Freeze has stopped. What was frozen or stopped before Freeze stays so.
func (f *Freezer) Thaw() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.thaw()
}

func (f *Freezer) thaw() {
	if f.groups != nil {
		f.groups.thaw()
	}
	f.stops.undo()
}
