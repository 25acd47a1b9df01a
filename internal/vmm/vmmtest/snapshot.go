package vmmtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/vmm"
)

// snapshots is the story of a VM that is written down and goes on, for drivers that can.
func snapshots(t *testing.T, d vmm.Driver, c vmm.Config) {
	before := traces(t, c)
	vm := Start(t, d, c)
	taker, ok := vm.Process.(vmm.Snapshotter)
	if !ok {
		return // the driver promises nothing
	}
	if _, err := vm.Agent.Configure(ctx(t), guest.Config{Hostname: "before"}); err != nil {
		t.Fatal(err)
	}
	dir := SnapshotDir(t, c)
	if err := taker.Snapshot(ctx(t), dir); err == nil {
		t.Fatal("a running VM is written down")
	}
	wantEmpty(t, dir)
	uptime := pausedAt(t, vm)
	if err := taker.Snapshot(ctx(t), dir); err != nil {
		t.Fatal(err)
	}
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
	if _, err := vm.Agent.Restored(ctx(t), guest.Config{Hostname: "after", Seed: make([]byte, guest.MinSeed)}); err != nil {
		t.Fatal(err)
	}
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

// refused starts what a snapshot does not fit.
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

// SnapshotDir makes an empty directory beside the VM's memory.
func SnapshotDir(t *testing.T, c vmm.Config) string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(c.Memory), "snapshot")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("a snapshot that failed leaves %v, %v", list, err)
	}
}

// manyExecs runs 1,000 commands, eight at a time.
func manyExecs(t *testing.T, d vmm.Driver, c vmm.Config) {
	vm := Start(t, d, c)
	if _, err := vm.Agent.Configure(ctx(t), guest.Config{Hostname: "many"}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := i; n < 1000; n += 8 {
				word := fmt.Sprint("word", n)
				if out, err := output(t.Context(), vm, "/bin/echo", word); out != word+"\n" || err != nil {
					t.Errorf("command %d says %q, %v", n, out, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// Output runs a command in the guest and returns what it prints.
func Output(t *testing.T, vm *VM, args ...string) string {
	t.Helper()
	out, err := output(ctx(t), vm, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func output(ctx context.Context, vm *VM, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := vm.Agent.Exec(ctx, banger.Exec{Args: args})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	frames := banger.NewFrameReader(conn)
	var out bytes.Buffer
	for {
		kind, payload, err := frames.Next()
		switch {
		case err != nil:
			return out.String(), err
		case kind == banger.FrameStdout:
			out.Write(payload)
		case kind == banger.FrameError:
			return out.String(), fmt.Errorf("the command failed: %s", payload)
		case kind == banger.FrameExit:
			var exit banger.Exit
			if err := json.Unmarshal(payload, &exit); err != nil || exit.Status() != 0 {
				return out.String(), fmt.Errorf("the command ended with %s, %v", payload, err)
			}
			return out.String(), nil
		}
	}
}
