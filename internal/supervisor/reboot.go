package supervisor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"banger"
	"banger/internal/vmm"
)

// A guest may reboot maxReboots times within rebootWindow; then it stays stopped, as it would never come to anything
// else.
const (
	maxReboots   = 5
	rebootWindow = time.Minute
)

// onVMMEnd records that the VMM has ended by itself, or boots the VM again if its guest asked for that.
func (m *machine) onVMMEnd(e vmm.Exit) {
	vm := m.snapshot()
	if !e.Reboot || vm.State != banger.StateRunning {
		m.onExit(e, "")
		return
	}
	e.Reason = "the guest rebooted"
	switch {
	case vm.Main != nil && vm.Spec.Attach: // the client's terminal is gone, and the command is its own
		m.onExit(e, ", which ends a VM whose main command belongs to a client")
	case !m.mayReboot(time.Now()):
		m.onExit(e, fmt.Sprintf(" more than %d times within %s", maxReboots, rebootWindow))
	default:
		m.reboot()
	}
}

// mayReboot counts a reboot, unless there were too many.
func (m *machine) mayReboot(now time.Time) bool {
	m.reboots = slices.DeleteFunc(m.reboots, func(t time.Time) bool { return now.Sub(t) >= rebootWindow })
	if len(m.reboots) >= maxReboots {
		return false
	}
	m.reboots = append(m.reboots, now)
	return true
}

// reboot boots the VM again whose VMM has ended. The VM is not at rest meanwhile, so that nobody who waits for its
// end is told of one. If it does not boot, it is failed with the reason.
func (m *machine) reboot() {
	mainCommand{m}.takeExit() // nobody waits for the main command of the boot before
	m.leaveGroup()
	m.leaveNetwork()
	m.s.dirs.CleanRun(m.id())
	ctx, cancel := context.WithCancel(m.ctx)
	defer cancel()
	m.setInterrupt(cancel)
	defer m.setInterrupt(nil)
	m.startNow(ctx, false, banger.Discard)
}
