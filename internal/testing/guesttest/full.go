package guesttest

import (
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"banger/internal/disk"
	"banger/internal/guest"
	"banger/internal/testing/vmmtest"
	"banger/internal/vmm"
)

// FullDisk tests what every driver must do when the host has no space for a guest's writes: the
// guest gets an error and continues. Only root can make a small disk.
func FullDisk(t *testing.T, d vmm.Driver, c vmm.Config) {
	dir := vmmtest.Dir(t)
	if err := syscall.Mount("small", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("a small disk needs root: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	small := &c.Drives[slices.IndexFunc(c.Drives, func(d vmm.Drive) bool { return d.Serial == "disk" })]
	small.Path = filepath.Join(dir, "disk")
	if err := disk.Create(small.Path, 64<<20); err != nil {
		t.Fatal(err)
	}
	vm := vmmtest.Start(t, d, c)
	vmmtest.Configure(t, vm, guest.Config{Hostname: "full"})
	vmmtest.Output(t, vm, "/bin/fill", "/fits", "4")
	if _, err := vmmtest.Try(t, vm, "/bin/fill", "/too-much", "40"); err == nil ||
		!strings.Contains(err.Error(), "ended with") {
		t.Errorf("where the host's disk is full, writing ends with: %v", err)
	}
	if out := vmmtest.Output(t, vm, "/bin/echo", "still", "here"); out != "still here\n" {
		t.Errorf("the guest then says %q", out)
	}
	if err := vm.Kill(); err != nil {
		t.Fatal(err)
	}
	vm.AwaitEnd(t)
}
