//go:build kvm

package firecracker_test

import (
	"os"
	"testing"

	"banger/internal/testing/guesttest"
	"banger/internal/testing/vmmtest"
	"banger/internal/vmm/firecracker"
)

// TestRealFirecracker runs the conformance suite on the Firecracker that FIRECRACKER names, with this host's KVM
// (make test-kvm).
func TestRealFirecracker(t *testing.T) {
	d := firecracker.Driver{Binary: os.Getenv("FIRECRACKER")}
	vmmtest.Run(t, d, config)
	vmmtest.Kernel(t, d, config)
	t.Run("the host's disk is full", func(t *testing.T) { guesttest.FullDisk(t, d, config(t)) })
	t.Run("it has spare places", func(t *testing.T) {
		vmmtest.Spares(t, d, config, firecracker.SpareDrives,
			func(t *testing.T, vm *vmmtest.VM, i int, disk string) {
				if err := firecracker.FillSpare(t.Context(), vm.Process, i, disk); err != nil {
					t.Fatal(err)
				}
			})
	})
	tidyBoot(t, d)
}

// TestFiguresOfFirecracker prints what a boot and a restore cost (make bench-kvm).
func TestFiguresOfFirecracker(t *testing.T) {
	vmmtest.Figures(t, firecracker.Driver{Binary: os.Getenv("FIRECRACKER")}, config)
}
