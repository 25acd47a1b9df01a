package snapshot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/vmm"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

// add adds a snapshot without memory.
func add(t *testing.T, s *Store, w Whole) banger.Snapshot {
	t.Helper()
	if w.ID == "" {
		w.ID = banger.NewID()
	}
	made, err := s.Add(t.Context(), w, "", false)
	must(t, err)
	return made
}

func of(name string) Whole {
	return Whole{Snapshot: banger.Snapshot{Name: name, VMName: "box", Created: time.Now(), Layer: "0123456789ab"}}
}

// TestSnapshotsAreFound by their names, ids and beginnings of ids. Those without a name get one.
func TestSnapshotsAreFound(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	first, second := add(t, s, of("")), add(t, s, of(""))
	named := add(t, s, of("mine"))
	if first.Name != "box-1" || second.Name != "box-2" {
		t.Errorf("they are called %q and %q", first.Name, second.Name)
	}
	if _, err := s.Add(t.Context(), Whole{Snapshot: banger.Snapshot{ID: banger.NewID(), Name: "mine"}}, "",
		false); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("a name is given twice: %v", err)
	}
	s = open(t, dir)
	for ref, want := range map[string]string{"mine": named.ID, named.ID: named.ID, named.ID[:11]: named.ID,
		"box-1": first.ID} {
		if w, err := s.Find(ref); err != nil || w.ID != want {
			t.Errorf("%s is %s, %v", ref, w.ID, err)
		}
	}
	for ref, want := range map[string]banger.Code{"none": banger.CodeNotFound, "": banger.CodeNotFound} {
		if _, err := s.Find(ref); banger.CodeOf(err) != want {
			t.Errorf("%q: %v", ref, err)
		}
	}
	must(t, s.Remove(named.ID))
	if list, err := s.List(); err != nil || len(list) != 2 {
		t.Errorf("there are %v, %v", list, err)
	}
}

// TestASnapshotKeepsItsFiles, which nobody writes, also when those of the VM change.
func TestASnapshotKeepsItsFiles(t *testing.T) {
	for _, move := range []bool{true, false} {
		from := t.TempDir()
		for _, name := range append(vmm.SavedNames(), "output.log") {
			must(t, os.WriteFile(filepath.Join(from, name), []byte(name), 0o644))
		}
		s := open(t, t.TempDir())
		w := of("one")
		w.ID = banger.NewID()
		made, err := s.Add(t.Context(), w, from, move)
		if err != nil || !made.Memory || made.Size == 0 {
			t.Fatalf("it is %+v, %v", made, err)
		}
		left, _ := os.ReadDir(from)
		if moved := len(left) == 0; moved != move {
			t.Errorf("move %t: %v are left", move, left)
		}
		os.WriteFile(filepath.Join(from, vmm.SnapshotRAM), []byte("changed"), 0o600)
		to := t.TempDir()
		must(t, s.CopyTo(t.Context(), made.ID, to, true))
		data, err := os.ReadFile(filepath.Join(to, vmm.SnapshotRAM))
		if err != nil || string(data) != vmm.SnapshotRAM || !vmm.HasSnapshot(to) {
			t.Errorf("the memory is %q, %v", data, err)
		}
		info, err := os.Stat(filepath.Join(s.path(made.ID), vmm.SnapshotRAM))
		if err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("its file is %v, %v", info, err)
		}
	}
}

// TestWhatWasCutOffIsRemoved, and so is a snapshot that goes with the end of a fork. One that cannot be read stays, and
// says so to those who would remove what it needs.
func TestWhatWasCutOffIsRemoved(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	kept := add(t, s, of("kept"))
	passing := of("passing")
	passing.Passing = true
	gone := add(t, s, passing)
	must(t, os.Mkdir(filepath.Join(dir, "0123456789ac"), 0o700))
	must(t, os.Mkdir(filepath.Join(dir, "0123456789ad"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "0123456789ad", infoFile), []byte("{"), 0o600))
	s = open(t, dir)
	entries, err := os.ReadDir(dir)
	must(t, err)
	names := ""
	for _, e := range entries {
		names += e.Name() + " "
	}
	if len(entries) != 2 || !strings.Contains(names, kept.ID) || strings.Contains(names, gone.ID) {
		t.Errorf("there are %s", names)
	}
	if _, err := s.Layers(); err == nil || !strings.Contains(err.Error(), "0123456789ad") {
		t.Errorf("what it needs is known: %v", err)
	}
}
