package qemu_test

import (
	"strings"
	"testing"
	"time"

	"banger/internal/guest"
	"banger/internal/testing/vmmtest"
	"banger/internal/vmm/qemu"
)

// TestAnInitOfTheImagesOwnStandsStill: PID 1 is frozen with all others, and the agent, which shares its control group,
// is not.
func TestAnInitOfTheImagesOwnStandsStill(t *testing.T) {
	c := config(t)
	c.Cmdline = guest.InitArgument
	vm := vmmtest.Start(t, qemu.Driver{}, c)
	vmmtest.Configure(t, vm, guest.Config{Hostname: "before"})
	vm.Console.Await(t, "ready")
	vm = vmmtest.SuspendAndRestore(t, qemu.Driver{}, vm, c)
	if err := vm.Agent.Shutdown(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	if exit := vm.AwaitEnd(t); exit.Panic || !strings.Contains(exit.Reason, "powered off") {
		t.Errorf("it ends with %+v", exit)
	}
}
