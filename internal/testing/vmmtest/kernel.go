package vmmtest

import (
	"strconv"
	"syscall"
	"testing"
	"time"

	"banger/internal/guest"
	"banger/internal/vmm"
)

// Kernel tests drivers whose guests have their own kernel, and so their own clock and PID 1. config
// is as in Run, with guesttest's root file system.
func Kernel(t *testing.T, d vmm.Driver, config func(t *testing.T) vmm.Config) {
	t.Run("its clock is the host's", func(t *testing.T) { clock(t, d, config(t)) })
	t.Run("it ends itself", func(t *testing.T) { ownEnds(t, d, config) })
	t.Run("a full disk ends no guest", func(t *testing.T) { fullDisk(t, d, config) })
}

// TimeLimit is the largest difference between a guest's clock and the host's once the guest was
// given the time.
const TimeLimit = 20 * time.Millisecond

// clock compares the times after a boot and after a pause.
func clock(t *testing.T, d vmm.Driver, c vmm.Config) {
	vm := Start(t, d, c)
	Configure(t, vm, guest.Config{Hostname: "clock"})
	wantTime(t, vm)
	if err := vm.Pause(ctx(t)); err != nil {
		t.Fatal(err)
	}
	wantSilent(t, vm)
	if err := vm.Resume(ctx(t)); err != nil {
		t.Fatal(err)
	}
	wantTime(t, vm)
}

// wantTime sets the guest's clock, as a shim does after a boot and a pause, and checks the time
// that a command in the guest prints.
func wantTime(t *testing.T, vm *VM) {
	t.Helper()
	behind, err := vm.Agent.SyncClock(ctx(t), true)
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	s := StateOf(t, vm)
	after := time.Now()
	t.Logf("the clock was behind by %s; the command's time is %s after it was asked for, and %s before it was there",
		behind, s.Time.Sub(before), after.Sub(s.Time))
	if before.Sub(s.Time) > TimeLimit || s.Time.Sub(after) > TimeLimit {
		t.Errorf("between %s and %s the guest's clock shows %s", before, after, s.Time)
	}
}

// ownEnds makes a program of the guest ask PID 1 for a reboot and for a power-off, and checks that
// the ends differ.
func ownEnds(t *testing.T, d vmm.Driver, config func(t *testing.T) vmm.Config) {
	for signal, reboot := range map[syscall.Signal]bool{syscall.SIGTERM: true, syscall.SIGUSR2: false} {
		vm := Start(t, d, config(t))
		Configure(t, vm, guest.Config{Hostname: "ends-itself"})
		Output(t, vm, "/bin/kill", strconv.Itoa(int(syscall.SIGHUP))) // ends nothing
		Try(t, vm, "/bin/kill", strconv.Itoa(int(signal)))            // the guest may end before it answers
		if exit := vm.AwaitEnd(t); exit.Reboot != reboot || exit.Panic || exit.Code != 0 {
			t.Errorf("after signal %d to PID 1 the end is %+v", signal, exit)
		}
	}
}
