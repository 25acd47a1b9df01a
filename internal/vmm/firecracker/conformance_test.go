package firecracker_test

import (
	"os"
	"sync"
	"testing"

	"banger/internal/vmm"
	"banger/internal/vmm/firecracker"
	"banger/internal/vmm/guesttest"
	"banger/internal/vmm/vmmtest"
)

var guests *guesttest.Parts

func TestMain(m *testing.M) {
	var run func() int
	guests, run = guesttest.Main(m)
	os.Exit(run())
}

var compileDouble = sync.OnceValues(func() (string, error) {
	return guests.Compile("banger/internal/vmm/firecracker/double", "firecracker")
})

// double is the stand-in for Firecracker: its API, with a guest under emulation.
func double(t *testing.T) string {
	t.Helper()
	path, err := compileDouble()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// config is a guest as of a host with KVM, which the double does without.
func config(t *testing.T) vmm.Config { return guests.Config(t, vmm.AccelKVM) }

func TestFirecrackerConforms(t *testing.T) {
	d := firecracker.Driver{Binary: double(t)}
	vmmtest.Run(t, d, config)
	t.Run("the host's disk is full", func(t *testing.T) { guesttest.FullDisk(t, d, config(t)) })
}
