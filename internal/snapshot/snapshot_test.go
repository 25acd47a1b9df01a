package snapshot

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/vmdir"
	"banger/internal/vmm"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// store returns an empty store.
func store(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "snapshots"))
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

// whole describes a snapshot of the VM "box".
func whole(name string) Whole {
	return Whole{Snapshot: banger.Snapshot{ID: banger.NewID(), Name: name, VMName: "box", Created: time.Now()}}
}

// saved makes a directory with the files of a VM that was written down. Each has its own name as its content.
func saved(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range append(vmm.SavedNames(), vmdir.OutputFiles()[0]) {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
	}
	return dir
}

// names returns the names of the files in a directory.
func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// TestASnapshotIsFoundByItsNameAndID, and one without a name gets that of its VM with a free number.
func TestASnapshotIsFoundByItsNameAndID(t *testing.T) {
	s := store(t)
	for i, want := range []string{"mine", "box-1", "box-2"} {
		name := ""
		if i == 0 {
			name = "mine"
		}
		w := whole(name)
		got, err := s.Add(t.Context(), w, "", false)
		if err != nil || got.Name != want || got.Memory {
			t.Fatalf("it is %+v, %v", got, err)
		}
		for _, ref := range []string{want, w.ID, w.ID[:11]} {
			if found, err := s.Find(ref); err != nil || found.ID != w.ID {
				t.Errorf("%s finds %+v, %v", ref, found, err)
			}
		}
	}
	for _, name := range []string{"mine", "box-2"} {
		if _, err := s.Add(t.Context(), whole(name), "", false); banger.CodeOf(err) != banger.CodeConflict {
			t.Errorf("a second %s: %v", name, err)
		}
	}
	if _, err := s.Find("nothing"); banger.CodeOf(err) != banger.CodeNotFound {
		t.Errorf("nothing is found: %v", err)
	}
	if list, err := s.List(); err != nil || len(list) != 3 || list[0].Name != "box-2" {
		t.Errorf("the list is %+v, %v", list, err)
	}
}

// TestADaemonFindsWholeSnapshots: what was not completed is gone, and what was to go with the end of a fork too.
func TestADaemonFindsWholeSnapshots(t *testing.T) {
	s := store(t)
	_, err := s.Add(t.Context(), whole("stays"), saved(t), false)
	must(t, err)
	passing := whole("")
	passing.Passing = true
	_, err = s.Add(t.Context(), passing, saved(t), true)
	must(t, err)
	half := filepath.Join(s.dir, banger.NewID())
	must(t, os.Mkdir(half, 0o700))
	must(t, os.WriteFile(filepath.Join(half, vmm.SnapshotRAM), []byte("half"), 0o600))
	again, err := Open(s.dir)
	must(t, err)
	list, err := again.List()
	if err != nil || len(list) != 1 || list[0].Name != "stays" || !list[0].Memory || len(names(t, s.dir)) != 1 {
		t.Errorf("it finds %+v in %v, %v", list, names(t, s.dir), err)
	}
}

// TestAFailureLeavesNothing of a snapshot whose files are not all there.
func TestAFailureLeavesNothing(t *testing.T) {
	s, dir := store(t), saved(t)
	must(t, os.Remove(filepath.Join(dir, vmm.SnapshotRAM)))
	if _, err := s.Add(t.Context(), whole("half"), dir, true); err == nil {
		t.Error("a snapshot without its memory is taken")
	}
	if left := names(t, s.dir); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

// TestMemoryMovesWithItsManifestLast, also when it was cut off: a directory with a manifest has all.
func TestMemoryMovesWithItsManifestLast(t *testing.T) {
	s := store(t)
	w := whole("kept")
	_, err := s.Add(t.Context(), w, saved(t), false)
	must(t, err)
	copied, vm := t.TempDir(), t.TempDir()
	must(t, s.CopyTo(t.Context(), w.ID, copied, true))
	all := names(t, copied)
	if len(all) != vmm.SavedFiles+1 {
		t.Fatalf("copied are %v", all)
	}
	must(t, os.Mkdir(filepath.Join(vm, vmm.SavedNames()[0]), 0o700)) // in the way of the manifest, so it is cut off
	if err := Move(copied, vm); err == nil {
		t.Fatal("it does not fail")
	}
	if left := names(t, copied); !slices.Equal(left, vmm.SavedNames()[:1]) {
		t.Errorf("not moved are %v, and not the manifest alone", left)
	}
	must(t, os.Remove(filepath.Join(vm, vmm.SavedNames()[0])))
	must(t, Move(copied, vm))
	if moved := names(t, vm); !slices.Equal(moved, all) || len(names(t, copied)) > 0 {
		t.Errorf("moved are %v of %v", moved, all)
	}
	if data, err := os.ReadFile(filepath.Join(vm, vmm.SnapshotRAM)); err != nil || string(data) != vmm.SnapshotRAM {
		t.Errorf("the memory is %q, %v", data, err)
	}
}

// TestNobodyWritesToASnapshot: its files are read only, and only root or their owner reaches them.
func TestNobodyWritesToASnapshot(t *testing.T) {
	s := store(t)
	w := whole("kept")
	_, err := s.Add(t.Context(), w, saved(t), true)
	must(t, err)
	for _, name := range names(t, s.path(w.ID)) {
		info, err := os.Stat(filepath.Join(s.path(w.ID), name))
		must(t, err)
		if mode := info.Mode().Perm(); mode&0o222 != 0 && !strings.HasSuffix(name, infoFile) {
			t.Errorf("%s has the mode %o", name, mode)
		}
	}
	if info, err := os.Stat(s.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("their directory has the mode %o, %v", info.Mode().Perm(), err)
	}
	open, err := s.Saved(w.ID, true)
	must(t, err)
	defer open.Close()
	if _, err := open.Memory.WriteAt([]byte("x"), 0); err == nil {
		t.Error("a sealed memory takes a write")
	}
}
