package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"banger"
	"banger/internal/vmdir"
)

const size = 8 << 20

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// host returns a store, and a VM with a disk of one file that begins with text.
func host(t *testing.T, text string) (*Store, banger.VM) {
	t.Helper()
	dirs := vmdir.Dirs{State: t.TempDir(), Run: t.TempDir()}
	must(t, dirs.MakeAll())
	s, err := Open(dirs)
	must(t, err)
	vm := banger.VM{ID: banger.NewID(), Name: "box"}
	must(t, os.Mkdir(dirs.VM(vm.ID), 0o700))
	must(t, os.WriteFile(dirs.Disk(vm.ID, ""), []byte(text), 0o600))
	must(t, os.Truncate(dirs.Disk(vm.ID, ""), size))
	return s, vm
}

// write writes a byte many times to a VM's disk at a MiB, as QEMU does.
func write(t *testing.T, s *Store, vm banger.VM, cluster int, text byte) {
	t.Helper()
	d, err := s.Drive(vm)
	must(t, err)
	graph := `{"driver":"raw","file":{"driver":"file","filename":"` + d.Path + `"}}`
	if n := len(d.Base); n > 0 {
		graph = `{"driver":"raw","file":{"driver":"file","filename":"` + d.Base[n-1].Path + `"}}`
		for i := n - 2; i >= -1; i-- {
			path := d.Path
			if i >= 0 {
				path = d.Base[i].Path
			}
			graph = `{"driver":"qcow2","file":{"driver":"file","filename":"` + path + `"},"backing":` + graph + `}`
		}
	}
	command := fmt.Sprintf("write -P %d %dM 4k", text, cluster)
	if out, err := exec.Command("qemu-io", "-c", command, "json:"+graph).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// content returns the whole disk of a VM.
func content(t *testing.T, s *Store, vm banger.VM) []byte {
	t.Helper()
	must(t, s.Flatten(t.Context(), vm))
	path := s.dirs.Disk(vm.ID, "")
	data, err := os.ReadFile(path)
	must(t, err)
	must(t, os.Remove(path))
	return data
}

// freeze puts a layer beneath a VM's disk.
func freeze(t *testing.T, s *Store, vm *banger.VM) {
	t.Helper()
	id, err := s.Begin(*vm)
	must(t, err)
	vm.Base = id
	must(t, s.Freeze(id))
}

// TestDisksShareLayers is the story of a disk with two layers, and of another one that begins with the lower layer.
func TestDisksShareLayers(t *testing.T) {
	s, vm := host(t, "base")
	freeze(t, s, &vm)
	write(t, s, vm, 1, 11)
	fork := banger.VM{ID: banger.NewID(), Base: vm.Base}
	must(t, os.Mkdir(s.dirs.VM(fork.ID), 0o700))
	must(t, s.Plant(fork.ID, fork.Base))
	write(t, s, fork, 2, 22)
	freeze(t, s, &vm)
	write(t, s, vm, 3, 33)
	want := func(vm banger.VM, bytes ...byte) {
		t.Helper()
		data := content(t, s, vm)
		if len(data) != size || string(data[:4]) != "base" {
			t.Errorf("the disk has %d bytes and begins with %q", len(data), data[:4])
		}
		for i, b := range bytes {
			if data[(i+1)<<20] != b {
				t.Errorf("at %d MiB there is %d, not %d", i+1, data[(i+1)<<20], b)
			}
		}
	}
	want(vm, 11, 0, 33)
	want(fork, 0, 22, 0)
	must(t, s.Check(vm))
	must(t, s.Check(fork))

	must(t, s.Join(t.Context(), vm.Base))
	if n, err := s.Depth(vm.Base); n != 1 || err != nil {
		t.Errorf("a joined layer is on %d layers, %v", n, err)
	}
	want(vm, 11, 0, 33)
	again, err := Open(s.dirs)
	must(t, err)
	if entries, _ := os.ReadDir(s.path(vm.Base)); len(entries) != 2 {
		t.Errorf("its directory has %v", entries)
	}
	s = again
	want(vm, 11, 0, 33)

	removed, err := s.Sweep([]string{vm.Base, fork.Base})
	if err != nil || len(removed) > 0 {
		t.Errorf("%v are removed, %v", removed, err)
	}
	removed, err = s.Sweep([]string{vm.Base})
	if err != nil || len(removed) != 1 || removed[0].ID != fork.Base {
		t.Errorf("%v are removed, %v", removed, err)
	}
	want(vm, 11, 0, 33)
}

// TestAFreezeThatIsCutOffIsCompleted at the next start, also when something was written to the overlay already.
func TestAFreezeThatIsCutOffIsCompleted(t *testing.T) {
	s, vm := host(t, "base")
	id, err := s.Begin(vm)
	must(t, err)
	before := vm
	vm.Base = id
	if s.IsFrozen(id) {
		t.Error("it is frozen before it is")
	}
	d, err := s.Drive(vm)
	if err != nil || len(d.Base) != 1 || !s.IsFrozen(id) {
		t.Fatalf("the disk is %+v, %v", d, err)
	}
	if data := content(t, s, vm); string(data[:4]) != "base" {
		t.Errorf("it begins with %q", data[:4])
	}
	if _, err := os.Stat(s.dirs.Disk(before.ID, "")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old file is there: %v", err)
	}
}

// TestWhatWasCutOffIsTidiedUp: only the file to which the disk writes stays, and both while it may be either.
func TestWhatWasCutOffIsTidiedUp(t *testing.T) {
	s, vm := host(t, "base")
	id, err := s.Begin(vm)
	must(t, err)
	disks := func() int {
		t.Helper()
		must(t, s.Tidy(vm))
		entries, err := os.ReadDir(s.dirs.VM(vm.ID))
		must(t, err)
		return len(entries)
	}
	vm.Base = id
	if n := disks(); n != 2 {
		t.Fatalf("before the freeze there are %d files", n)
	}
	must(t, s.Freeze(id))
	other, err := s.Begin(vm) // the daemon dies before it stores this
	must(t, err)
	must(t, os.WriteFile(s.dirs.Disk(vm.ID, "")+nextSuffix, nil, 0o600))
	if n := disks(); n != 1 {
		t.Errorf("there are %d files", n)
	}
	if data := content(t, s, vm); string(data[:4]) != "base" {
		t.Errorf("the disk begins with %q", data[:4])
	}
	removed, err := s.Sweep([]string{vm.Base})
	if err != nil || len(removed) != 1 || removed[0].ID != other {
		t.Errorf("%v are removed, %v", removed, err)
	}

	vm.Base = "" // the layer is gone, and so is its disk: nothing is known, so nothing is removed
	if n := disks(); n != 1 {
		t.Errorf("of a disk that is not there %d files are left", n)
	}
}

// TestAnOverlayReplacesOneThatWasLeft by a restore that was cut off.
func TestAnOverlayReplacesOneThatWasLeft(t *testing.T) {
	s, vm := host(t, "base")
	freeze(t, s, &vm)
	write(t, s, vm, 1, 11)
	must(t, s.Plant(vm.ID, vm.Base))
	if data := content(t, s, vm); string(data[:4]) != "base" || data[1<<20] != 0 {
		t.Errorf("the disk begins with %q, and has %d at 1 MiB", data[:4], data[1<<20])
	}
}

// TestFreezesThatAreCutOffAreCompleted from the lowest on, when several were.
func TestFreezesThatAreCutOffAreCompleted(t *testing.T) {
	s, vm := host(t, "base")
	for range 3 {
		id, err := s.Begin(vm)
		must(t, err)
		vm.Base = id
	}
	d, err := s.Drive(vm)
	if err != nil || len(d.Base) != 3 {
		t.Fatalf("the disk is %+v, %v", d, err)
	}
	if data := content(t, s, vm); string(data[:4]) != "base" {
		t.Errorf("it begins with %q", data[:4])
	}
}

// TestAnAbandonedLayerLeavesNothing.
func TestAnAbandonedLayerLeavesNothing(t *testing.T) {
	s, vm := host(t, "base")
	id, err := s.Begin(vm)
	must(t, err)
	must(t, s.Abandon(vm.ID, id))
	entries, _ := os.ReadDir(s.dirs.VM(vm.ID))
	layers, _ := os.ReadDir(s.dirs.Layers())
	if len(entries) != 1 || len(layers) != 0 {
		t.Errorf("there are %v and %v", entries, layers)
	}
}

// TestALayerOfAHostileVMMIsRefused: it may have written anything into the disk's file, or put a link in its place.
func TestALayerOfAHostileVMMIsRefused(t *testing.T) {
	s, vm := host(t, "base")
	freeze(t, s, &vm)
	top := s.dirs.Disk(vm.ID, vm.Base)
	good, err := os.ReadFile(top)
	must(t, err)
	for name, spoil := range map[string]func(){
		"a header with a base": func() {
			bad := bytes.Clone(good)
			bad[15], bad[19] = 0x70, 11
			must(t, os.WriteFile(top, bad, 0o600))
		},
		"a link": func() {
			must(t, os.Remove(top))
			must(t, os.Symlink("/etc/shadow", top))
		},
		"nothing": func() { must(t, os.Remove(top)) },
	} {
		spoil()
		if err := s.Check(vm); banger.CodeOf(err) != banger.CodeConflict {
			t.Errorf("%s: it is used: %v", name, err)
		}
		next, err := s.Begin(vm)
		if err == nil {
			if err := s.Freeze(next); err == nil {
				t.Errorf("%s: it becomes a layer", name)
			}
			must(t, s.Abandon(vm.ID, next))
		}
		os.Remove(top)
		must(t, os.WriteFile(top, good, 0o600))
	}
	must(t, s.Check(vm))
}

// TestNothingIsRemovedWhenSomethingCannotBeRead, because that may need it.
func TestNothingIsRemovedWhenSomethingCannotBeRead(t *testing.T) {
	s, vm := host(t, "base")
	freeze(t, s, &vm)
	lower := vm.Base
	freeze(t, s, &vm)
	must(t, os.WriteFile(filepath.Join(s.path(vm.Base), infoFile), []byte("{"), 0o600))
	if removed, err := s.Sweep([]string{vm.Base}); err == nil || len(removed) > 0 || !s.IsFrozen(lower) {
		t.Errorf("%v are removed, %v", removed, err)
	}
}

// TestACopyOfADiskIsALayer, for VMMs that take no overlays.
func TestACopyOfADiskIsALayer(t *testing.T) {
	s, vm := host(t, "base")
	id, err := s.Copy(t.Context(), vm)
	must(t, err)
	must(t, os.WriteFile(s.dirs.Disk(vm.ID, ""), []byte("changed"), 0o600))
	path := filepath.Join(t.TempDir(), "disk")
	must(t, s.Unfold(t.Context(), id, path))
	data, err := os.ReadFile(path)
	if err != nil || len(data) != size || string(data[:4]) != "base" {
		t.Errorf("it has %d bytes, %v", len(data), err)
	}
}

// TestALayerThatIsNotThereIsRefused, and so is one without a file that is about another VM.
func TestALayerThatIsNotThereIsRefused(t *testing.T) {
	s, vm := host(t, "base")
	id, err := s.Begin(vm)
	must(t, err)
	for _, base := range []string{id, banger.NewID(), "../../etc"} {
		if _, err := s.Drive(banger.VM{ID: banger.NewID(), Name: "other", Base: base}); banger.CodeOf(err) !=
			banger.CodeConflict {
			t.Errorf("the layer %s: %v", base, err)
		}
	}
}

// TestAScratchDiskChangesNoLayer: what is written to it is its own, and it needs no more room than that. A VMM that
// takes no overlays gets a copy.
func TestAScratchDiskChangesNoLayer(t *testing.T) {
	s, vm := host(t, "base")
	freeze(t, s, &vm)
	write(t, s, vm, 1, 11)
	freeze(t, s, &vm)
	path := filepath.Join(t.TempDir(), "scratch")
	for _, overlays := range []bool{true, false} {
		d, err := s.Scratch(t.Context(), vm.Base, "after", path, overlays)
		must(t, err)
		if d.Serial != "after" || d.Path != path || (len(d.Base) == 2) != overlays || !overlays && len(d.Base) != 0 {
			t.Errorf("with overlays %v the drive is %+v", overlays, d)
		}
		if !overlays {
			data, err := os.ReadFile(path)
			must(t, err)
			if len(data) != size || string(data[:4]) != "base" || data[1<<20] != 11 {
				t.Errorf("the copy has %d bytes and begins with %q", len(data), data[:4])
			}
		}
		must(t, os.Remove(path))
	}
	if _, err := s.Scratch(t.Context(), banger.NewID(), "x", path, true); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("a layer that is not there: %v", err)
	}
}

// TestWhatADiskHasOfItsOwn: a disk is untouched until something is written, and the layer of another VM's disk is where
// it came from.
func TestWhatADiskHasOfItsOwn(t *testing.T) {
	s, vm := host(t, "base")
	if s.Untouched(vm) {
		t.Error("a disk of one file is untouched")
	}
	freeze(t, s, &vm)
	if !s.Untouched(vm) {
		t.Error("a new overlay is not untouched")
	}
	fork := banger.VM{ID: banger.NewID(), Base: vm.Base}
	must(t, os.Mkdir(s.dirs.VM(fork.ID), 0o700))
	must(t, s.Plant(fork.ID, fork.Base))
	origin := vm.Base
	write(t, s, fork, 2, 22)
	if s.Untouched(fork) {
		t.Error("an overlay with data is untouched")
	}
	freeze(t, s, &fork)
	freeze(t, s, &fork)
	if l, err := s.Foreign(fork.Base, fork.ID); err != nil || l.ID != origin || l.VM != vm.ID {
		t.Errorf("the fork comes from %+v, %v", l, err)
	}
	if _, err := s.Foreign(vm.Base, vm.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a VM that is no fork comes from: %v", err)
	}
	cut, err := s.Begin(vm)
	must(t, err)
	vm.Base = cut
	if s.Untouched(vm) {
		t.Error("a disk whose freeze was cut off is untouched")
	}
}
