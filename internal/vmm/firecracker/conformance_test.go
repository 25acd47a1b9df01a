package firecracker_test

import (
	"os"
	"strings"
	"sync"
	"testing"

	"banger/internal/guest"
	"banger/internal/testing/guesttest"
	"banger/internal/testing/vmmtest"
	"banger/internal/vmm"
	"banger/internal/vmm/firecracker"
)

var guests *guesttest.Parts

func TestMain(m *testing.M) {
	var run func() int
	guests, run = guesttest.Main(m)
	os.Exit(run())
}

var compileDouble = sync.OnceValues(func() (string, error) {
	return guests.Compile("banger/internal/testing/double", "firecracker")
})

// double returns the path of the double of Firecracker, which has its API and an emulated guest.
func double(t *testing.T) string {
	t.Helper()
	path, err := compileDouble()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// config returns a guest as for a host with KVM. The double needs no KVM.
func config(t *testing.T) vmm.Config { return guests.Config(t, vmm.AccelKVM) }

func TestFirecrackerConforms(t *testing.T) {
	d := firecracker.Driver{Binary: double(t)}
	vmmtest.Run(t, d, config)
	vmmtest.Kernel(t, d, config)
	t.Run("the host's disk is full", func(t *testing.T) { guesttest.FullDisk(t, d, config(t)) })
	for _, version := range []string{"1.12.1", "1.15.1", "1.17.0"} { // beside the double's own, 1.16.1
		t.Run(version, func(t *testing.T) {
			d := firecracker.Driver{Binary: faulty(t, "DOUBLE_VERSION="+version)}
			vmmtest.Life(t, d, config)
			tidyBoot(t, d)
		})
	}
	tidyBoot(t, d)
}

// tidyBoot checks that PCI is switched off only once in the command line, and that Firecracker's
// own messages are not on the guest's console.
func tidyBoot(t *testing.T, d firecracker.Driver) {
	vm := vmmtest.Start(t, d, config(t))
	vmmtest.Configure(t, vm, guest.Config{Hostname: "tidy"})
	if s := vmmtest.StateOf(t, vm); strings.Count(s.Cmdline, "pci=off") != 1 {
		t.Errorf("the kernel's command line is %q", s.Cmdline)
	}
	if said := vm.Console.String(); strings.Contains(said, "API server") || strings.Contains(said, "Firecracker") {
		t.Errorf("the console says\n%s", said)
	}
	vm.Kill()
	vm.AwaitEnd(t)
}
