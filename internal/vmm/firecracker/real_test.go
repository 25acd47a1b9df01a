//go:build firecracker

package firecracker_test

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/guest"
	"banger/internal/vmm"
	"banger/internal/vmm/firecracker"
	"banger/internal/vmm/vmmtest"
)

// TestRealFirecracker is `make test-firecracker`: the conformance suite on the Firecracker
// that FIRECRACKER names, on this host's KVM, and the figures for docs/SPECIFICATION.md.
func TestRealFirecracker(t *testing.T) {
	d := firecracker.Driver{Binary: os.Getenv("FIRECRACKER")}
	version, err := d.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	vmmtest.Run(t, d, config)
	tidyBoot(t, d)
	if t.Failed() {
		return
	}
	var boots, restores, overheads []float64
	for range 5 {
		boot, restore, overhead := figures(t, d)
		boots, restores, overheads = append(boots, boot), append(restores, restore), append(overheads, overhead)
	}
	fmt.Printf("\n| Figure (Firecracker %s, median of 5) | |\n|---|---|\n| boot to the agent's answer | %.0f ms |\n| restore to the agent's answer | %.0f ms |\n| memory beside the guest's | %.1f MiB |\n\n",
		version, median(boots), median(restores), median(overheads))
}

// figures boots a VM, writes it down, and restores it: milliseconds, milliseconds, MiB.
func figures(t *testing.T, d vmm.Driver) (boot, restore, overhead float64) {
	c := config(t)
	start := time.Now()
	vm := vmmtest.Start(t, d, c)
	if _, err := vm.Agent.Configure(t.Context(), guest.Config{Hostname: "figures"}); err != nil {
		t.Fatal(err)
	}
	boot = float64(time.Since(start).Microseconds()) / 1000
	overhead = besideGuest(t, vm.Handle().PID, c.MemoryMiB)
	dir := vmmtest.SnapshotDir(t, c)
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := vm.Process.(vmm.Snapshotter).Snapshot(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	vm.Kill()
	vm.AwaitEnd(t)
	c.Restore = dir
	start = time.Now()
	vm = vmmtest.Start(t, d, c)
	if _, err := vm.Agent.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	restore = float64(time.Since(start).Microseconds()) / 1000
	vm.Kill()
	vm.AwaitEnd(t)
	return boot, restore, overhead
}

// besideGuest is the resident memory of a VMM in MiB without its mappings as large as the
// guest's memory (proc(5), smaps).
func besideGuest(t *testing.T, pid, guestMiB int) float64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var total, size float64
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kb float64
		switch {
		case strings.HasPrefix(lines.Text(), "Size:"):
			fmt.Sscanf(lines.Text(), "Size: %f kB", &size)
		case strings.HasPrefix(lines.Text(), "Rss:") && size < float64(guestMiB<<10):
			fmt.Sscanf(lines.Text(), "Rss: %f kB", &kb)
			total += kb / 1024
		}
	}
	return total
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
