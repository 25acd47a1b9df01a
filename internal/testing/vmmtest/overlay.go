package vmmtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/guest"
	"banger/internal/qcow2"
	"banger/internal/vmm"
)

// Overlays writes a running VM down, puts an overlay on its disk at that instant, and lets it go on. Then two VMs go
// on from the same instant, each with an overlay of its own, and one boots from the whole chain. What is beneath an
// overlay never changes.
func Overlays(t *testing.T, d vmm.Driver, config func(*testing.T) vmm.Config) {
	c := opened(t, config(t))
	vm := Start(t, d, c)
	Configure(t, vm, guest.Config{Hostname: "source"})
	Output(t, vm, "/bin/fill", "/kept", "4")
	dir, base := SnapshotDir(t, c), c.Drives[1].Path
	first := putOverlay(t, vm, base, dir)
	before, files := sum(t, base), sums(t, dir)
	wantNotWritable(t, vm, base)
	Output(t, vm, "/bin/fill", "/later", "8")
	second := putOverlay(t, vm, first, "")
	wantNotWritable(t, vm, first)
	Output(t, vm, "/bin/fill", "/last", "2")

	var random [][]byte
	for i := range 2 {
		one := config(t)
		one.Drives[1].Path = emptyOverlay(t, one, c)
		one.Drives[1].Base = []vmm.Layer{{Path: base}}
		fork := StartShared(t, d, opened(t, one), dir)
		seed := bytes.Repeat([]byte{byte(i)}, guest.MinSeed)
		if _, err := fork.Agent.Restored(ctx(t), guest.Config{Hostname: fmt.Sprint("fork", i), Seed: seed}); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, fork, "/kept")
		Output(t, fork, "/bin/fill", "/mine", fmt.Sprint(1+i))
		s := StateOf(t, fork)
		if random = append(random, s.Random); s.Hostname != fmt.Sprint("fork", i) {
			t.Errorf("fork %d is called %q", i, s.Hostname)
		}
	}
	if bytes.Equal(random[0], random[1]) {
		t.Error("both forks draw the same numbers")
	}
	wantFiles(t, vm, "/kept", "/later", "/last")
	if err := vm.Agent.Shutdown(ctx(t), 0); err != nil {
		t.Fatal(err)
	}
	vm.AwaitEnd(t)

	c = config(t)
	c.Drives[1].Path, c.Drives[1].Base = second, []vmm.Layer{{Path: first}, {Path: base}}
	vm = Start(t, d, c)
	Configure(t, vm, guest.Config{Hostname: "again"})
	wantFiles(t, vm, "/kept", "/later", "/last")
	if sum(t, base) != before || sums(t, dir) != files {
		t.Error("what is shared has changed")
	}
}

// putOverlay puts an overlay on the disk of a VM, which wrote to the file now. With dir, it takes a snapshot of the
// same instant. It returns the path of the overlay.
func putOverlay(t *testing.T, vm *VM, now, dir string) string {
	t.Helper()
	top := filepath.Join(filepath.Dir(now), "overlay of "+filepath.Base(now))
	f, err := os.Create(top)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := qcow2.Create(f, diskSize); err != nil {
		t.Fatal(err)
	}
	frozen, err := os.Open(now)
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	suspend(t, vm)
	over := vm.Process.(vmm.Overlayer)
	if err := over.Overlay(ctx(t), "disk", f, frozen); err == nil {
		t.Fatal("a running VM gets an overlay")
	}
	err = vm.Pause(ctx(t))
	if err == nil && dir != "" {
		err = vm.Process.(vmm.Snapshotter).Snapshot(ctx(t), dir)
	}
	if err == nil {
		err = over.Overlay(ctx(t), "disk", f, frozen)
	}
	if err == nil {
		err = vm.Resume(ctx(t))
	}
	if err == nil {
		_, err = vm.Agent.Thaw(ctx(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	return top
}

// diskSize is the size of the disks of config in bytes.
const diskSize = 64 << 20

// emptyOverlay makes an overlay beside the disk of c.
func emptyOverlay(t *testing.T, c, of vmm.Config) string {
	t.Helper()
	info, err := os.Stat(of.Drives[1].Path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(c.Drives[1].Path + ".overlay")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := qcow2.Create(f, info.Size()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// wantFiles checks which of the files of Overlays a guest has.
func wantFiles(t *testing.T, vm *VM, want ...string) {
	t.Helper()
	for _, path := range []string{"/kept", "/later", "/last"} {
		_, err := vm.Agent.StatFile(ctx(t), banger.FileRequest{Op: banger.FileStat, Path: []byte(path)})
		if wanted := strings.Contains(strings.Join(want, " "), path); (err == nil) != wanted {
			t.Errorf("the file %s: %v", path, err)
		}
	}
}

// wantNotWritable checks that a VMM has a file open for reading only (proc_pid_fdinfo(5)).
func wantNotWritable(t *testing.T, vm *VM, path string) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", vm.Handle().PID)
	entries, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, e := range entries {
		if to, _ := os.Readlink(proc + "fd/" + e.Name()); to != path {
			continue
		}
		found = true
		info, err := os.ReadFile(proc + "fdinfo/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		_, flags, _ := strings.Cut(string(info), "flags:\t")
		if mode := strings.TrimSpace(flags[:strings.IndexByte(flags, '\n')]); mode[len(mode)-1] != '0' {
			t.Errorf("the VMM has %s open with the flags %s", path, mode)
		}
	}
	if !found {
		t.Errorf("the VMM has not opened %s", path)
	}
}

// sum returns the checksum of a file.
func sum(t *testing.T, path string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Link(path, filepath.Join(dir, "file")); err != nil {
		t.Fatal(err)
	}
	return sums(t, dir)
}
