//go:build kvm

package qemu_test

import (
	"testing"

	"banger/internal/testing/guesttest"
	"banger/internal/testing/vmmtest"
	"banger/internal/vmm"
	"banger/internal/vmm/qemu"
)

// configKVM returns a guest that this host's KVM executes.
func configKVM(t *testing.T) vmm.Config { return guests.Config(t, vmm.AccelKVM) }

// TestQEMUWithKVM runs the conformance suite on QEMU with this host's KVM (make test-kvm).
func TestQEMUWithKVM(t *testing.T) {
	vmmtest.Run(t, qemu.Driver{}, configKVM)
	vmmtest.Kernel(t, qemu.Driver{}, configKVM)
	t.Run("the host's disk is full", func(t *testing.T) { guesttest.FullDisk(t, qemu.Driver{}, configKVM(t)) })
}

// TestFiguresOfQEMU prints what a boot and a restore cost (make bench-kvm).
func TestFiguresOfQEMU(t *testing.T) { vmmtest.Figures(t, qemu.Driver{}, configKVM) }
