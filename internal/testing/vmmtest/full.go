package vmmtest

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/vmm"
)

// fullDisk starts three guests on a disk that fills up. The third continues from a snapshot. Each
// of them can still use the rest of its memory. Only root can make such a disk.
func fullDisk(t *testing.T, d vmm.Driver, config func(t *testing.T) vmm.Config) {
	if os.Getuid() != 0 {
		t.Skip("this test makes a small disk, which needs root")
	}
	disk, err := os.MkdirTemp("", "full")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(disk) })
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1g"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	t.Setenv("TMPDIR", disk) // for config

	restored := config(t)
	vm := Start(t, d, restored)
	Configure(t, vm, guest.Config{Hostname: "restored"})
	if err := vm.Pause(ctx(t)); err != nil {
		t.Fatal(err)
	}
	restored.Restore = SnapshotDir(t, restored)
	if err := vm.Process.(vmm.Snapshotter).Snapshot(ctx(t), restored.Restore); err != nil {
		t.Fatal(err)
	}
	end(t, vm)
	vms := []*VM{Start(t, d, restored)}
	if _, err := vms[0].Agent.Restored(ctx(t), guest.Config{
		Hostname: "restored",
		Seed:     make([]byte, guest.MinSeed),
	}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		vm := Start(t, d, config(t))
		Configure(t, vm, guest.Config{Hostname: "fresh"})
		vms = append(vms, vm)
	}
	fillUp(t, disk)
	for i, vm := range vms {
		if out, err := Try(t, vm, "/bin/fill", "/dev/shm/much", "60"); err != nil {
			t.Errorf("guest %d does not get its memory: %v %s", i, err, out)
		}
	}
}

// fillUp writes to a disk until no space is left.
func fillUp(t *testing.T, disk string) {
	t.Helper()
	f, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for part := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(part)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}
