package firecracker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/testing/vmmtest"
	"banger/internal/vmm"
	"banger/internal/vmm/firecracker"
)

// TestSnapshotRoundTrip: a VM is saved, ends, and continues with its memory, twice: a restored VM
// can be saved like a booted one. Connections are reset, listeners stay.
func TestSnapshotRoundTrip(t *testing.T) {
	d := firecracker.Driver{Binary: double(t)}
	c := config(t)
	vm := vmmtest.Start(t, d, c)
	vmmtest.Configure(t, vm, guest.Config{Hostname: "kept"})
	held, err := vm.Process.(vmm.Dialer).Dial(t.Context(), guest.AgentPort)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	var uptime int64
	for range 2 {
		before, err := vm.Agent.Ping(t.Context())
		if err != nil || before.UptimeMillis < uptime {
			t.Fatalf("the guest is up for %d ms, and was for %d (%v)", before.UptimeMillis, uptime, err)
		}
		uptime = before.UptimeMillis
		c.Restore = takeAndEnd(t, vm, c)
		held.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := held.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection outlives its snapshot: %d, %v", n, err)
		}
		start := time.Now()
		vm = vmmtest.Start(t, d, c)
		if s := vmmtest.StateOf(t, vm); s.Hostname != "kept" {
			t.Errorf("what goes on is %+v", s)
		}
		t.Logf("from the restore to a command's output it took %d ms", time.Since(start).Milliseconds())
	}
	if after, err := vm.Agent.Ping(t.Context()); err != nil || after.UptimeMillis <= uptime {
		t.Errorf("the guest is up for %d ms, and was for %d (%v)", after.UptimeMillis, uptime, err)
	}
	vm.Kill()
	vm.AwaitEnd(t)
}

// TestARestoreElsewhere: the vsock may be in another directory, and a drive, which Firecracker opens by its path, must
// be where it was.
func TestARestoreElsewhere(t *testing.T) {
	for _, version := range []string{"1.16.1", "1.15.0"} {
		t.Run(version, func(t *testing.T) {
			d := firecracker.Driver{Binary: faulty(t, "DOUBLE_VERSION="+version)}
			c := config(t)
			vm := vmmtest.Start(t, d, c)
			vmmtest.Configure(t, vm, guest.Config{Hostname: "moved"})
			c.Restore = takeAndEnd(t, vm, c)
			other := c
			other.Dir = filepath.Join(vmmtest.Dir(t), "run")
			if err := os.Mkdir(other.Dir, 0o700); err != nil {
				t.Fatal(err)
			}
			moved := other
			moved.Drives = slices.Clone(c.Drives)
			moved.Drives[0].Path = filepath.Join(other.Dir, "drive")
			if err := os.Link(c.Drives[0].Path, moved.Drives[0].Path); err != nil {
				t.Fatal(err)
			}
			wantRefused(t, d, moved, "where it was")
			vm = vmmtest.Start(t, d, other)
			if _, err := vm.Agent.Ping(t.Context()); err != nil { // may be sent twice
				t.Fatal(err)
			}
			if s := vmmtest.StateOf(t, vm); s.Hostname != "moved" {
				t.Errorf("what goes on is %+v", s)
			}
		})
	}
}

// TestARestoreOpensItsTap: the VM opens the tap of the Config and not the snapshot's. The guest
// keeps its MAC address.
func TestARestoreOpensItsTap(t *testing.T) {
	d := firecracker.Driver{Binary: double(t)}
	c := config(t)
	// With CAP_NET_ADMIN, an open creates a tap.
	c.Namespaces, c.Wrap = true, []string{"setpriv", "--no-new-privs"}
	c.NICs = []vmm.NIC{{MAC: "02:00:00:00:00:01", Device: "tap0"}}
	vm := vmmtest.Start(t, d, c)
	vmmtest.Configure(t, vm, guest.Config{Hostname: "x"})
	wantTap(t, vm, "tap0")
	c.Restore = takeAndEnd(t, vm, c)
	c.NICs = []vmm.NIC{{MAC: "02:00:00:00:00:02", Device: "tap1"}}
	vm = vmmtest.Start(t, d, c)
	wantTap(t, vm, "tap1")
	if s := vmmtest.StateOf(t, vm); !slices.Equal(s.MACs, []string{"02:00:00:00:00:01"}) {
		t.Errorf("the guest has the MACs %q", s.MACs)
	}
}

// TestAFailedSnapshotLeavesNothing of its own, removes nothing of others, and the VM continues.
func TestAFailedSnapshotLeavesNothing(t *testing.T) {
	c := config(t)
	vm := vmmtest.Start(t, firecracker.Driver{Binary: double(t)}, c)
	vmmtest.Configure(t, vm, guest.Config{Hostname: "x"})
	taker := vm.Process.(vmm.Snapshotter)
	wantFailure(t, taker.Snapshot(t.Context(), vmmtest.SnapshotDir(t, c)), "the VM runs: pause it first")
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	whole := vmmtest.SnapshotDir(t, c)
	if err := taker.Snapshot(t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	before := files(t, whole)
	wantFailure(t, taker.Snapshot(t.Context(), whole), "has the file snapshot.json already")
	if after := files(t, whole); after != before {
		t.Errorf("of a snapshot that is there, another leaves\n%s", after)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, s := range map[string]struct {
		ctx   context.Context
		dir   string
		words string
	}{
		"there is no directory":          {t.Context(), filepath.Join(filepath.Dir(c.Dir), "none"), "no such file"},
		"it is canceled":                 {canceled, vmmtest.SnapshotDir(t, c), "context canceled"},
		"the disk is full at the state":  {t.Context(), vmmtest.SmallDir(t, c, "nr_inodes=1"), "Create snapshot error"},
		"the disk is full at the memory": {t.Context(), vmmtest.SmallDir(t, c, "size=4m"), "Create snapshot error"},
	} {
		// The double can try only once in a pause.
		if err := errors.Join(vm.Resume(t.Context()), vm.Pause(t.Context())); err != nil {
			t.Fatal(err)
		}
		err := taker.Snapshot(s.ctx, s.dir)
		t.Logf("%s: %v", name, err)
		wantFailure(t, err, s.words)
		if list, _ := os.ReadDir(s.dir); len(list) > 0 {
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

// TestASnapshotGivenUpMidway: the VMM dies while it writes, or the caller gives up.
func TestASnapshotGivenUpMidway(t *testing.T) {
	c := config(t)
	vm := vmmtest.Start(t, firecracker.Driver{Binary: faulty(t, "DOUBLE_STOPS_AT=/snapshot/create")}, c)
	vmmtest.Configure(t, vm, guest.Config{Hostname: "x"})
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	taker, dir := vm.Process.(vmm.Snapshotter), vmmtest.SnapshotDir(t, c)
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := taker.Snapshot(short, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("of a caller without patience the error is %v", err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("it leaves %v, %v", list, err)
	}
	vm.Kill()
	vm.AwaitEnd(t)

	c = config(t)
	vm = vmmtest.Start(t, firecracker.Driver{Binary: faulty(t, "DOUBLE_STOPS_AT=/snapshot/create")}, c)
	vmmtest.Configure(t, vm, guest.Config{Hostname: "x"})
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	taker, dir = vm.Process.(vmm.Snapshotter), vmmtest.SnapshotDir(t, c)
	begun, failed := created(t, dir), make(chan error, 1)
	go func() { failed <- taker.Snapshot(context.Background(), dir) }()
	begun()
	vm.Kill()
	wantFailure(t, <-failed, "Firecracker was killed by signal 9")
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("it leaves %v, %v", list, err)
	}
}

// TestABrokenSnapshotIsRefused, whatever is broken, and nothing is left.
func TestABrokenSnapshotIsRefused(t *testing.T) {
	d := firecracker.Driver{Binary: double(t)}
	c := config(t)
	vm := vmmtest.Start(t, d, c)
	vmmtest.Configure(t, vm, guest.Config{Hostname: "x"})
	good := takeAndEnd(t, vm, c)
	for name, s := range map[string]struct {
		spoil func(dir string) error
		words string
	}{
		"the state is cut off": {func(dir string) error {
			return os.Truncate(filepath.Join(dir, vmm.SnapshotState), 100)
		}, "Firecracker refused PUT /snapshot/load: Load snapshot error: Failed to restore from snapshot: Failed to get snapshot state from file"},
		"the state is none": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, vmm.SnapshotState), []byte("{}"), 0o600)
		}, "Magic value"},
		"the state is away": {func(dir string) error {
			return os.Remove(filepath.Join(dir, vmm.SnapshotState))
		}, "Failed to open snapshot file"},
		"the memory is cut off": {func(dir string) error {
			return os.Truncate(filepath.Join(dir, vmm.SnapshotRAM), 1<<20)
		}, "Failed to load guest memory"},
		"the memory is away": {func(dir string) error {
			return os.Remove(filepath.Join(dir, vmm.SnapshotRAM))
		}, "Failed to load guest memory"},
		"the memory is noise": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, vmm.SnapshotRAM), make([]byte, 256<<20), 0o600)
		}, "Load snapshot error"},
		"it is of a version": {func(dir string) error {
			m, err := vmm.ReadManifest(dir)
			m.Version = "1.14.0"
			return errors.Join(err, vmm.CommitSnapshot(dir, m))
		}, "the VMM's version was 1.14.0, and is 1.16.1"},
	} {
		c.Restore = filepath.Join(vmmtest.Dir(t), "snapshot")
		if err := errors.Join(os.CopyFS(c.Restore, os.DirFS(good)), s.spoil(c.Restore)); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { wantRefused(t, d, c, s.words) })
	}
}

// TestADeadVsockAfterARestoreIsTold: the guest listened when the snapshot was taken, so silence
// means a dead device, already at the first dial.
func TestADeadVsockAfterARestoreIsTold(t *testing.T) {
	d := firecracker.Driver{Binary: faulty(t, "DOUBLE_LOSES_VSOCK=1")}
	c := config(t)
	vm := vmmtest.Start(t, d, c)
	vmmtest.Configure(t, vm, guest.Config{Hostname: "x"})
	c.Restore = takeAndEnd(t, vm, c)
	vm = vmmtest.Start(t, d, c)
	start := time.Now()
	_, err := vm.Process.(vmm.Dialer).Dial(t.Context(), guest.AgentPort)
	wantFailure(t, err, "the VM's vsock does not answer")
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %s to say so", took)
	}
}

// takeAndEnd takes a snapshot of a VM and ends it.
func takeAndEnd(t *testing.T, vm *vmmtest.VM, c vmm.Config) string {
	t.Helper()
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir, start := vmmtest.SnapshotDir(t, c), time.Now()
	if err := vm.Process.(vmm.Snapshotter).Snapshot(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	t.Logf("the snapshot took %d ms", time.Since(start).Milliseconds())
	vm.Kill()
	vm.AwaitEnd(t)
	return dir
}

// wantRefused checks that a VM does not start, that the error is one sentence, and that nothing is
// left.
func wantRefused(t *testing.T, d vmm.Driver, c vmm.Config, words string) {
	t.Helper()
	before := files(t, filepath.Dir(c.Dir))
	p, err := d.Start(t.Context(), c, io.Discard)
	if err == nil {
		p.Kill()
		<-p.Done()
	}
	wantFailure(t, err, words)
	if after := files(t, filepath.Dir(c.Dir)); after != before {
		t.Errorf("it leaves\n%s\nwhere there was\n%s", after, before)
	}
}

func wantFailure(t *testing.T, err error, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is\n%v, not one with\n%s", err, words)
	}
}

// wantTap checks that a VM's network namespace has exactly one tap.
func wantTap(t *testing.T, vm *vmmtest.VM, name string) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", vm.Handle().PID))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(data), "tap") != 1 || !strings.Contains(string(data), name+":") {
		t.Errorf("its devices are\n%s", data)
	}
}

// created returns a function that waits until something was created in a directory (inotify(7)).
func created(t *testing.T, dir string) (wait func()) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	t.Cleanup(func() { f.Close() })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		t.Fatal(err)
	}
	return func() {
		f.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := f.Read(make([]byte, 4096)); err != nil {
			t.Fatalf("nothing is made in the directory: %v", err)
		}
	}
}

// faulty returns the double with an environment variable.
func faulty(t *testing.T, variable string) string {
	t.Helper()
	return program(t, "#!/bin/sh\n"+variable+" exec "+double(t)+" \"$@\"\n")
}
