package supervisor

import (
	"fmt"
	"time"

	"banger"
	"banger/internal/parking"
	"banger/internal/vmm"
)

// onVMMEnd records that the VMM has ended by itself, or boots the VM again if its guest asked for a reboot.
func (m *machine) onVMMEnd(e vmm.Exit) {
	vm := m.Snapshot()
	if !e.Reboot || vm.State != banger.StateRunning {
		m.onExit(e, "")
		return
	}
	e.Reason = "the guest rebooted"
	switch {
	case vm.Main != nil && vm.Spec.Attach: // the command belongs to the client, whose terminal is gone
		m.onExit(e, ", which ends a VM whose main command belongs to a client")
	case !m.reboots.May(time.Now()):
		m.onExit(e, fmt.Sprintf(" more than %d times within %s", parking.MaxReboots, parking.RebootWindow))
	default:
		m.reboot()
	}
}

// reboot boots a VM again after its VMM has ended. The VM does not become at rest meanwhile, so waiters do not see an
// end. If it does not boot, it fails with the reason.
func (m *machine) reboot() {
	mainCommand{m}.takeExit() // end the wait for the main command of the boot before
	m.leaveGroup()
	link{m}.leave()
	m.s.dirs.CleanRun(m.ID())
	later{m}.startAlone("the VM did not boot again")
}
