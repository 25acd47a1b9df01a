package vmmtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/sparse"
	"banger/internal/vmm"
)

// snapshots takes snapshots of a VM and restores them, if the driver can.
func snapshots(t *testing.T, d vmm.Driver, c vmm.Config) {
	before := traces(t, c)
	vm := Start(t, d, c)
	taker, ok := vm.Process.(vmm.Snapshotter)
	if !ok {
		return // the driver is not a Snapshotter
	}
	Configure(t, vm, guest.Config{Hostname: "before"})
	suspendTwice(t, vm)
	dir := SnapshotDir(t, c)
	if err := taker.Snapshot(ctx(t), dir); err == nil {
		t.Fatal("a running VM is written down")
	}
	wantEmpty(t, dir)
	uptime := pausedAt(t, vm)
	if err := taker.Snapshot(ctx(t), dir); err != nil {
		t.Fatal(err)
	}
	wantSparse(t, filepath.Join(dir, vmm.SnapshotRAM), int64(c.MemoryMiB)<<20)
	if err := taker.Snapshot(ctx(t), dir); err == nil {
		t.Error("a snapshot is written over another")
	}
	wantSilent(t, vm)
	if err := vm.Resume(ctx(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := vm.Agent.Ping(ctx(t)); err != nil {
		t.Errorf("after its snapshot the VM does not go on: %v", err)
	}
	if err := vm.Kill(); err != nil {
		t.Fatal(err)
	}
	vm.AwaitEnd(t)

	refused(t, d, c, dir)
	c.Restore = dir
	vm = Start(t, d, c)
	info, err := vm.Agent.Ping(ctx(t))
	if err != nil || info.UptimeMillis < uptime {
		t.Fatalf("restored, the guest is up for %d ms, and was for %d (%v)", info.UptimeMillis, uptime, err)
	}
	wakeUp(t, vm)
	if out := Output(t, vm, "/bin/echo", "it", "goes", "on"); out != "it goes on\n" {
		t.Errorf("a command in it says %q", out)
	}
	if err := vm.Agent.Shutdown(ctx(t), time.Second); err != nil {
		t.Fatal(err)
	}
	if exit := vm.AwaitEnd(t); exit.Panic || !strings.Contains(exit.Reason, "powered off") {
		t.Errorf("a clean power-off is told as %+v", exit)
	}
	os.RemoveAll(dir)
	wantTraces(t, c, before)
}

// pausedAt pauses a VM and returns how long it was up before, in milliseconds.
func pausedAt(t *testing.T, vm *VM) int64 {
	t.Helper()
	info, err := vm.Agent.Ping(ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.Pause(ctx(t)); err != nil {
		t.Fatal(err)
	}
	return info.UptimeMillis
}

// refused checks that a VM does not start from a snapshot that does not fit its Config.
func refused(t *testing.T, d vmm.Driver, c vmm.Config, dir string) {
	t.Helper()
	for name, spoil := range map[string]func(*vmm.Config){
		"there is no snapshot":   func(c *vmm.Config) { c.Restore = filepath.Join(dir, "none") },
		"the memory is another":  func(c *vmm.Config) { c.MemoryMiB += 64 },
		"the CPUs are others":    func(c *vmm.Config) { c.CPUs++ },
		"a drive is missing":     func(c *vmm.Config) { c.Drives = c.Drives[:1] },
		"the kernel is another":  func(c *vmm.Config) { c.Kernel = c.Initrd },
		"the version is another": func(c *vmm.Config) { c.Version = "9.9.9" },
	} {
		other := c
		other.Restore = dir
		spoil(&other)
		before := traces(t, other)
		p, err := d.Start(ctx(t), other, NewConsole())
		if err == nil {
			p.Kill()
			<-p.Done()
			t.Errorf("where %s it is restored all the same", name)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("where %s the error is %q, not one sentence", name, err)
		}
		wantTraces(t, other, before)
	}
}

// SnapshotDir creates an empty directory beside the directory of the VM's sockets.
func SnapshotDir(t *testing.T, c vmm.Config) string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(c.Dir), "snapshot")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// SmallDir creates such a directory on a file system with a size limit, given as an option of
// tmpfs(5). That needs root; an ordinary user gets a directory that cannot be written to.
func SmallDir(t *testing.T, c vmm.Config, limit string) string {
	t.Helper()
	dir := SnapshotDir(t, c)
	if os.Getuid() != 0 {
		os.Chmod(dir, 0o500)
		return dir
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, limit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) }) // the VMM may still be ending
	return dir
}

// wantSparse checks that the file of a memory takes no room for what the guest has never used. memory is in bytes.
func wantSparse(t *testing.T, path string, memory int64) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if room := sparse.Allocated(info); room > memory*3/4 {
		t.Errorf("the memory of %d bytes takes %d on the disk", memory, room)
	}
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("a snapshot that failed leaves %v, %v", list, err)
	}
}
