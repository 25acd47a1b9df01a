package qemu_test

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/testing/guesttest"
	"banger/internal/testing/vmmtest"
	"banger/internal/vmm"
	"banger/internal/vmm/qemu"
)

// TestTwoGuestsOfOneSnapshot: each continues from the same instant with its own disk and sockets,
// and neither changes the snapshot. After they were informed, they share nothing that two machines
// must not share, and an old connection is reset.
func TestTwoGuestsOfOneSnapshot(t *testing.T) {
	c := withNIC(t, config(t), "02:00:00:00:00:01")
	vm := vmmtest.Start(t, qemu.Driver{}, c)
	vmmtest.Configure(t, vm, guest.Config{
		Hostname: "template",
		Network:  &guest.Network{Address: "10.9.0.2/24", Gateway: "10.9.0.1"},
	})
	before := vmmtest.StateOf(t, vm)
	if before.Hostname != "template" || before.MachineID != guesttest.MachineID ||
		!slices.Equal(before.MACs, []string{"02:00:00:00:00:01"}) {
		t.Fatalf("the template is %+v", before)
	}
	dial := banger.Exec{Args: []string{"/bin/dial", "10.9.0.1:9"}, Main: true}
	if err := vm.Agent.Start(t.Context(), dial); err != nil {
		t.Fatal(err)
	}
	vmmtest.AwaitOutput(t, vm, "dialling")
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := vmmtest.SnapshotDir(t, c)
	start := time.Now()
	if err := vm.Process.(vmm.Snapshotter).Snapshot(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	t.Logf("the snapshot took %d ms", time.Since(start).Milliseconds())
	sum := sumOf(t, filepath.Join(dir, vmm.SnapshotRAM))

	ids := []string{strings.Repeat("a", 32), strings.Repeat("b", 32)}
	var got []vmmtest.State
	for i, id := range ids {
		fork := withNIC(t, forkOf(t, c, dir), "02:00:00:00:00:09")
		start := time.Now()
		vm := vmmtest.Start(t, qemu.Driver{}, fork)
		t.Logf("the restore to the agent's session took %d ms", time.Since(start).Milliseconds())
		mac, seed := []string{"02:00:00:00:00:0a", "02:00:00:00:00:0b"}[i], sha256.Sum256([]byte(id))
		identity := guest.Config{Hostname: "fork", Seed: seed[:], MachineID: id, ResetConnections: true,
			Network: &guest.Network{Address: "10.9.0.7/24", Gateway: "10.9.0.1", MAC: mac}}
		if _, err := vm.Agent.Restored(t.Context(), identity); err != nil {
			t.Fatal(err)
		}
		vmmtest.AwaitOutput(t, vm, "the connection was reset")
		s := vmmtest.StateOf(t, vm)
		if s.Hostname != "fork" || s.MachineID != id || !slices.Equal(s.MACs, []string{mac}) ||
			!slices.Contains(s.Addresses, "10.9.0.7/24") ||
			len(s.Addresses) != 1 || !s.Default || time.Since(s.Time).Abs() > 30*time.Second {
			t.Errorf("fork %d is %+v", i, s)
		}
		got = append(got, s)
	}
	if slices.Equal(got[0].Random, got[1].Random) {
		t.Error("both draw the same random numbers")
	}
	if sumOf(t, filepath.Join(dir, vmm.SnapshotRAM)) != sum {
		t.Error("the snapshot's memory has changed")
	}
	if err := vm.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := vmmtest.StateOf(t, vm); s.Hostname != "template" {
		t.Errorf("the template is %+v", s)
	}
}

// TestASnapshotOfARestoredVM is like one of a VM that has booted: its memory is a file, as large as the first one, and
// does not need the snapshot before. So it is too where a restored VM cannot map the memory of its snapshot.
func TestASnapshotOfARestoredVM(t *testing.T) {
	for name, d := range map[string]qemu.Driver{"mapped": {}, "copied": {CopyMemory: true}} {
		t.Run(name, func(t *testing.T) { snapshotsOfRestoredVMs(t, d) })
	}
}

func snapshotsOfRestoredVMs(t *testing.T, d qemu.Driver) {
	c := withNIC(t, config(t), "02:00:00:00:00:01")
	var sizes []int64
	for range 4 {
		dir := takeAndEnd(t, d, c)
		info, err := os.Stat(filepath.Join(dir, vmm.SnapshotRAM))
		if err != nil {
			t.Fatal(err)
		}
		state, err := os.Stat(filepath.Join(dir, vmm.SnapshotState))
		if err != nil {
			t.Fatal(err)
		}
		if state.Size() > 4<<20 {
			t.Errorf("the state has %d bytes, so the memory is in it", state.Size())
		}
		sizes = append(sizes, info.Sys().(*syscall.Stat_t).Blocks*512)
		os.RemoveAll(c.Restore)
		c.Restore = dir
	}
	if first, last := sizes[0], sizes[len(sizes)-1]; last > first+first/4 {
		t.Errorf("the memory takes more room each time: %d", sizes)
	}
	t.Logf("the memory files take %d bytes", sizes)
}

// TestASnapshotThatFailsLeavesNothing, and the VM continues.
func TestASnapshotThatFailsLeavesNothing(t *testing.T) {
	c := config(t)
	vm := vmmtest.Start(t, qemu.Driver{}, c)
	vmmtest.Configure(t, vm, guest.Config{Hostname: "x"})
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, s := range map[string]struct {
		ctx context.Context
		dir func() string
	}{
		"there is no directory":          {t.Context(), func() string { return filepath.Join(filepath.Dir(c.Dir), "none") }},
		"it is canceled":                 {canceled, func() string { return vmmtest.SnapshotDir(t, c) }},
		"the disk is full at the state":  {t.Context(), func() string { return vmmtest.SmallDir(t, c, "size=16k") }},
		"the disk is full at the memory": {t.Context(), func() string { return vmmtest.SmallDir(t, c, "size=4m") }},
	} {
		dir := s.dir()
		if err := vm.Process.(vmm.Snapshotter).Snapshot(s.ctx, dir); err == nil {
			t.Errorf("where %s, there is a snapshot", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
		if list, _ := os.ReadDir(dir); len(list) > 0 {
			t.Errorf("where %s, it leaves %v", name, list)
		}
	}
	if err := vm.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := vm.Agent.Ping(t.Context()); err != nil {
		t.Errorf("the VM does not go on: %v", err)
	}
}

// takeAndEnd starts c, takes a snapshot of it, and ends it.
func takeAndEnd(t *testing.T, d qemu.Driver, c vmm.Config) string {
	t.Helper()
	vm := vmmtest.Start(t, d, c)
	if c.Restore == "" {
		vmmtest.Configure(t, vm, guest.Config{Hostname: "kept"})
	}
	if s := vmmtest.StateOf(t, vm); s.Hostname != "kept" {
		t.Fatalf("it is %+v", s)
	}
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := vmmtest.SnapshotDir(t, c)
	if err := vm.Process.(vmm.Snapshotter).Snapshot(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	vm.Kill()
	vm.AwaitEnd(t)
	return dir
}

// forkOf returns another VM of c's snapshot, with a copy of the disk.
func forkOf(t *testing.T, c vmm.Config, snapshot string) vmm.Config {
	t.Helper()
	fork := c
	dir := vmmtest.Dir(t)
	fork.Dir, fork.Restore, fork.NICs = filepath.Join(dir, "run"), snapshot, nil
	if err := os.Mkdir(fork.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	fork.Drives = slices.Clone(c.Drives)
	fork.Drives[1].Path = filepath.Join(dir, "disk")
	disk, err := os.Open(c.Drives[1].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if err := vmm.CopyFile(t.Context(), disk, fork.Drives[1].Path); err != nil {
		t.Fatal(err)
	}
	return fork
}

// withNIC returns c with a NIC whose frames go nowhere.
func withNIC(t *testing.T, c vmm.Config, mac string) vmm.Config {
	t.Helper()
	ours, theirs := vmmtest.SocketPair(t)
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(io.Discard, ours) })
	t.Cleanup(func() {
		ours.Close()
		theirs.Close()
		wg.Wait()
	})
	c.NICs = []vmm.NIC{{MAC: mac, Socket: theirs}}
	return c
}

func sumOf(t *testing.T, path string) (sum [32]byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}
