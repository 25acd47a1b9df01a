package vmm_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/vmm"
)

// whole makes a snapshot in a new directory.
func whole(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := vmm.TakeSnapshot(dir, func() error {
		for _, name := range []string{vmm.SnapshotState, vmm.SnapshotRAM} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
				return err
			}
		}
		return vmm.CommitSnapshot(dir, vmm.Manifest{Driver: "x"})
	})
	if err != nil || !vmm.HasSnapshot(dir) {
		t.Fatalf("there is no snapshot: %v", err)
	}
	return dir
}

// TestASnapshotIsUsedOnce: once a VM goes on, its disk changes and fits the memory no more.
func TestASnapshotIsUsedOnce(t *testing.T) {
	dir := whole(t)
	undo, err := vmm.UseSnapshot(dir)
	if err != nil || vmm.HasSnapshot(dir) {
		t.Fatalf("it is there again, or %v", err)
	}
	if _, err := vmm.UseSnapshot(dir); err == nil {
		t.Error("it is used twice")
	}
	if _, err := os.Stat(filepath.Join(dir, vmm.SnapshotRAM)); err != nil {
		t.Errorf("the VMM has no memory to open: %v", err)
	}
	if undo(); !vmm.HasSnapshot(dir) {
		t.Error("a VM that did not run after all has lost its memory")
	}
}

// TestARemovedSnapshotLeavesNothing, whether it was used or not, and leaves other files alone.
func TestARemovedSnapshotLeavesNothing(t *testing.T) {
	for _, used := range []bool{false, true} {
		dir := whole(t)
		if err := os.WriteFile(filepath.Join(dir, "disk"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if used {
			if _, err := vmm.UseSnapshot(dir); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := vmm.RemoveSnapshot(dir); err != nil {
				t.Fatal(err)
			}
		}
		list, err := os.ReadDir(dir)
		if err != nil || len(list) != 1 || list[0].Name() != "disk" {
			t.Errorf("used %v: it leaves %v, %v", used, list, err)
		}
	}
}

// TestASnapshotThatFails leaves nothing, and one that is there is not written over.
func TestASnapshotThatFails(t *testing.T) {
	dir, failed := t.TempDir(), errors.New("the disk is full")
	err := vmm.TakeSnapshot(dir, func() error {
		os.WriteFile(filepath.Join(dir, vmm.SnapshotState), nil, 0o600)
		return failed
	})
	if list, _ := os.ReadDir(dir); !errors.Is(err, failed) || len(list) > 0 {
		t.Errorf("it leaves %v, and the error is %v", list, err)
	}
	dir = whole(t)
	err = vmm.TakeSnapshot(dir, func() error { t.Error("a snapshot is written over another"); return nil })
	if err == nil || !vmm.HasSnapshot(dir) {
		t.Errorf("the snapshot before is gone, %v", err)
	}
}
