package vmmtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/guest"
	"banger/internal/sparse"
	"banger/internal/vmm"
)

// templates writes down a guest that waits for its host, and starts two VMs at once from that, if the driver can. With
// mounted, the guest has mounted its disk before.
func templates(t *testing.T, d vmm.Driver, config func(*testing.T) vmm.Config, mounted bool) {
	c := opened(t, config(t))
	if mounted {
		c.Cmdline += " " + guest.MountArgument
	}
	dir := cut(t, d, c)
	if dir == "" {
		return // the driver is not a Snapshotter
	}
	before := sums(t, dir)
	var vms []*VM
	var states []State
	for i := range 2 {
		one := opened(t, config(t))
		if mounted {
			copyDisks(t, one, c)
		}
		vm := StartShared(t, d, one, dir)
		seed := bytes.Repeat([]byte{byte(i)}, guest.MinSeed)
		Configure(t, vm, guest.Config{Hostname: fmt.Sprint("box", i), Seed: seed})
		vms, states = append(vms, vm), append(states, StateOf(t, vm))
		if i == 1 {
			goesOn(t, d, vm, one)
		}
	}
	if states[0].Hostname != "box0" || states[1].Hostname != "box1" {
		t.Errorf("they are called %q and %q", states[0].Hostname, states[1].Hostname)
	}
	if bytes.Equal(states[0].Random, states[1].Random) {
		t.Error("both draw the same numbers")
	}
	if out := Output(t, vms[0], "/bin/echo", "the", "first"); out != "the first\n" {
		t.Errorf("the first one says %q", out)
	}
	if after := sums(t, dir); after != before {
		t.Errorf("the files of the template were %s, and are %s", before, after)
	}
}

// opened returns c with open files, by whose numbers a VMM that looks for them at the same place finds those of another
// VM.
func opened(t *testing.T, c vmm.Config) vmm.Config {
	t.Helper()
	c, done, err := c.OpenFiles()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(done)
	return c
}

// cut writes a guest down that waits for its host, and ends it. It returns the directory, or "" if the driver cannot.
func cut(t *testing.T, d vmm.Driver, c vmm.Config) string {
	t.Helper()
	console := NewConsole()
	p, err := d.Start(ctx(t), c, console)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		p.Kill()
		<-p.Done()
	}()
	taker, ok := p.(vmm.Snapshotter)
	if !ok {
		return ""
	}
	console.Await(t, guest.Waiting)
	if err := p.Pause(ctx(t)); err != nil {
		t.Fatal(err)
	}
	dir := SnapshotDir(t, c)
	if err := taker.Snapshot(ctx(t), dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// StartShared starts a VM from a snapshot that others share. Its VMM may open the memory for writing, but must not
// write.
func StartShared(t *testing.T, d vmm.Driver, c vmm.Config, dir string) *VM {
	t.Helper()
	from, err := vmm.OpenSaved(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if d.Name() == "qemu" {
		from.Memory.Close()
		if from.Memory, err = os.OpenFile(filepath.Join(dir, vmm.SnapshotRAM), os.O_RDWR, 0); err != nil {
			t.Fatal(err)
		}
	}
	c.Restore, c.Shared, c.From = dir, true, from
	return Start(t, d, c)
}

// goesOn writes a VM down that has started from a shared snapshot, and lets it go on from there.
func goesOn(t *testing.T, d vmm.Driver, vm *VM, c vmm.Config) {
	t.Helper()
	vm = continued(t, d, vm, c)
	if _, err := vm.Agent.Ping(ctx(t)); err != nil { // the first connection may be cut
		t.Fatal(err)
	}
	if out := Output(t, vm, "/bin/echo", "still", "here"); out != "still here\n" {
		t.Errorf("after its own snapshot it says %q", out)
	}
}

// copyDisks gives the writable disks of to the content of those of from.
func copyDisks(t *testing.T, to, from vmm.Config) {
	t.Helper()
	for i, drive := range from.Drives {
		if drive.ReadOnly {
			continue
		}
		src, err := os.Open(drive.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		dst, err := os.OpenFile(to.Drives[i].Path, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer dst.Close()
		if err := sparse.Copy(context.Background(), dst, src); err != nil {
			t.Fatal(err)
		}
	}
}

// sums returns the checksums of the files in a directory.
func sums(t *testing.T, dir string) (text string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		text += fmt.Sprintf("%s %x\n", e.Name(), sum.Sum(nil))
	}
	return text
}
