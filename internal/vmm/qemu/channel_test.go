package qemu_test

import (
	"testing"

	"banger/internal/guest"
	"banger/internal/testing/vmmtest"
	"banger/internal/vmm/qemu"
)

// TestTheChannelIsOpenedAgain: a new session with the agent follows one that has ended, even if the
// guest was paused meanwhile.
func TestTheChannelIsOpenedAgain(t *testing.T) {
	vm := vmmtest.Start(t, qemu.Driver{}, config(t))
	vmmtest.Configure(t, vm, guest.Config{Hostname: "again"})
	for range 3 {
		vm.ReopenPaused(t)
		if s := vmmtest.StateOf(t, vm); s.Hostname != "again" {
			t.Errorf("the guest says %+v", s)
		}
	}
}
