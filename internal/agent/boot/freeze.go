package boot

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/agent/freezer"
	"banger/internal/guest"
)

// FreezeTime is how long the processes of a guest may take to stop.
const FreezeTime = 5 * time.Second

// machine is what both kinds of a guest have.
type machine struct {
	disk    int  // a descriptor of the VM's own disk
	ownInit bool // the image's init is PID 1
	booted  bool // the image's init has booted before the configuration
	freezer *freezer.Freezer
	spaces  []string // paths of the network namespaces in which the frozen processes are
}

// CorrectClock sets the clock, or changes its speed for a while.
func (m *machine) CorrectClock(c guest.Correction) error { return correctClock(c) }

// Disk returns the path of the VM's own disk.
func (m *machine) Disk() string { return procPath(m.disk) }

// Thaw lets the processes go on that Freeze has stopped.
func (m *machine) Thaw() { m.freezer.Thaw() }

// Freeze writes the disks and stops all processes but the agent. It writes them before, when programs can still help
// (FUSE), and the VM's own disk after, with what came meanwhile. A boot from the disk then finds what sync(2) keeps.
// The file systems themselves are not frozen (FIFREEZE): the agent must write files before anything is thawed, and the
// journal makes a disk good that is cut off now.
func (m *machine) Freeze(ctx context.Context) error {
	prepareReset()
	if err := within(ctx, func() error { unix.Sync(); return nil }); err != nil {
		return fmt.Errorf("writing the disks: %w", err)
	}
	if err := m.freezer.Freeze(FreezeTime); err != nil {
		return err
	}
	m.spaces = namespaces()
	if err := within(ctx, func() error { return syncDisk(m.disk) }); err != nil {
		m.freezer.Thaw()
		return fmt.Errorf("writing the VM's disk: %w", err)
	}
	return nil
}

// syncDisk writes the file system of a directory, whose descriptor need not be open for reading.
func syncDisk(dir int) error {
	fd, err := unix.Open(procPath(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Syncfs(fd)
}

// within returns the result of do, or an error when ctx ends before. The kernel's call then goes on until the disk
// answers.
func within(ctx context.Context, do func() error) error {
	result := make(chan error, 1)
	go func() { result <- do() }()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return banger.Errorf(banger.CodeCanceled, "the host waits no longer")
	}
}
