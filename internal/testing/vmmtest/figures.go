package vmmtest

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger/internal/guest"
	"banger/internal/vmm"
)

// maxRestore is the longest time that a restore may take, as a fraction of a boot in the same run.
// A restore that boots, or that reads all of the guest's memory, takes longer.
const maxRestore = 0.3

// Figures measures boots and restores in pairs, BANGER_TEST_PAIRS of them or 5, and prints one row of the table of
// docs/SPECIFICATION.md: the medians of the times to the agent's answer, their ratio, and the VMM's own memory.
func Figures(t *testing.T, d vmm.Driver, config func(*testing.T) vmm.Config) {
	version, err := d.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pairs, err := strconv.Atoi(os.Getenv("BANGER_TEST_PAIRS"))
	if err != nil {
		pairs = 5
	}
	var boots, restores, ratios, overheads []float64
	for range pairs {
		boot, restore, overhead := pair(t, d, config(t))
		boots, restores = append(boots, boot), append(restores, restore)
		ratios, overheads = append(ratios, restore/boot), append(overheads, overhead)
	}
	slices.Sort(ratios)
	fmt.Printf("| %s %s | %.0f ms | %.0f ms | %.2f (%.2f-%.2f) | %.1f MiB |\n", d.Name(), version,
		median(boots), median(restores), median(ratios), ratios[0], ratios[len(ratios)-1], median(overheads))
	if median(ratios) > maxRestore {
		t.Errorf("a restore takes %.2f of a boot, and %.1f are allowed", median(ratios), maxRestore)
	}
}

// pair boots a VM, takes a snapshot of it, and restores it. It returns the times in milliseconds
// and the VMM's own memory in MiB.
func pair(t *testing.T, d vmm.Driver, c vmm.Config) (boot, restore, overhead float64) {
	start := time.Now()
	vm := Start(t, d, c)
	Configure(t, vm, guest.Config{Hostname: "figures"})
	boot = float64(time.Since(start).Microseconds()) / 1000
	overhead = besideGuest(t, vm.Handle().PID, c.MemoryMiB)
	dir := SnapshotDir(t, c)
	if err := vm.Pause(ctx(t)); err != nil {
		t.Fatal(err)
	}
	if err := vm.Process.(vmm.Snapshotter).Snapshot(ctx(t), dir); err != nil {
		t.Fatal(err)
	}
	end(t, vm)
	c.Restore = dir
	start = time.Now()
	vm = Start(t, d, c)
	if _, err := vm.Agent.Ping(ctx(t)); err != nil {
		t.Fatal(err)
	}
	restore = float64(time.Since(start).Microseconds()) / 1000
	end(t, vm)
	return boot, restore, overhead
}

func end(t *testing.T, vm *VM) {
	t.Helper()
	if err := vm.Kill(); err != nil {
		t.Fatal(err)
	}
	vm.AwaitEnd(t)
}

// besideGuest returns the resident memory of a VMM in MiB, without the mappings that are at least
// as large as the guest's memory (proc(5), smaps).
func besideGuest(t *testing.T, pid, guestMiB int) float64 {
	t.Helper()
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
	sorted := slices.Sorted(slices.Values(v))
	return sorted[len(sorted)/2]
}
