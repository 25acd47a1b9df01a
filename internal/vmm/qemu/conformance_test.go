package qemu_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/testing/guesttest"
	"banger/internal/testing/vmmtest"
	"banger/internal/vmm"
	"banger/internal/vmm/qemu"
)

var guests *guesttest.Parts

func TestMain(m *testing.M) {
	var run func() int
	guests, run = guesttest.Main(m)
	os.Exit(run())
}

// config returns an emulated guest, which runs on every host.
func config(t *testing.T) vmm.Config { return guests.Config(t, vmm.AccelTCG) }

func TestQEMUConforms(t *testing.T) {
	vmmtest.Run(t, qemu.Driver{}, config)
	vmmtest.Kernel(t, qemu.Driver{}, config)
	t.Run("its disk gets overlays", func(t *testing.T) { vmmtest.Overlays(t, qemu.Driver{}, config) })
	t.Run("the host's disk is full", func(t *testing.T) { guesttest.FullDisk(t, qemu.Driver{}, config(t)) })
	t.Run("it has spare places", func(t *testing.T) {
		vmmtest.Spares(t, qemu.Driver{}, config, qemu.SparePorts,
			func(t *testing.T, vm *vmmtest.VM, i int, disk string) {
				f, err := os.OpenFile(disk, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if err := qemu.FillSpare(t.Context(), vm.Process, i, f); err != nil {
					t.Fatal(err)
				}
			})
	})
}

// TestAGuestPanicIsToldAsOne boots a kernel that finds no init.
func TestAGuestPanicIsToldAsOne(t *testing.T) {
	c := config(t)
	c.Initrd = filepath.Join(filepath.Dir(c.Dir), "empty")
	if err := os.WriteFile(c.Initrd, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	console := vmmtest.NewConsole()
	p, err := qemu.Driver{}.Start(t.Context(), c, console)
	if err != nil {
		t.Fatal(err)
	}
	exit := (&vmmtest.VM{Process: p}).AwaitEnd(t)
	if !exit.Panic || exit.Code != 0 || !strings.Contains(exit.Reason, "panicked") {
		t.Errorf("the guest ends with %+v; its console says\n%s", exit, console)
	}
}

func TestAQEMUThatIsAbsentOrTooOldIsRefused(t *testing.T) {
	old := filepath.Join(t.TempDir(), "old-qemu")
	if err := os.WriteFile(old, []byte("#!/bin/sh\necho QEMU emulator version 5.2.0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for binary, words := range map[string]string{
		"/nonexistent/qemu":    "no such file",
		"qemu-system-nonesuch": "not installed",
		old:                    "too old",
		"/bin/true":            "cannot read a version",
		"/bin/false":           "exit status 1",
	} {
		d := qemu.Driver{Binary: binary}
		if v, err := d.Version(t.Context()); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s has version %q, and the error is %v, not one with %q", binary, v, err, words)
		}
		if _, err := d.Start(t.Context(), vmm.Config{Accel: vmm.AccelTCG}, vmmtest.NewConsole()); err == nil {
			t.Errorf("%s starts a VM", binary)
		}
	}
}
