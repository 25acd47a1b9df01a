//go:build bench

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"banger"
)

// The bounds of the promises about snapshots and forks. A VM may stand still for so long, and longer with each GiB of
// memory in use.
const (
	stillMillis       = 50
	stillMillisPerGiB = 1000
	maxForkMillis     = 400
	forksAtOnce       = 20
	maxForkMiB        = 40 // PSS of an idle one
	maxForksRoom      = 1.05
	forksToMeasure    = 10
)

// forks measures snapshots of one VM, and VMs that go on from them.
func (b *bench) forks() {
	vm := b.cli("create", "-q", "--memory", "2g", image, "--", "sleep", "infinity")
	b.removeAtEnd(vm)
	b.cli("start", "-q", vm)
	b.cli("exec", vm, "--", "sh", "-c", "mount -t tmpfs -o size=90% none /mnt")
	for _, more := range []int{0, 256, 768} {
		b.still(vm, more)
	}
	b.cli("rm", "-f", vm)

	vm = b.newVM()
	b.cli("start", "-q", vm)
	b.forkTimes(vm)
	b.cli("rm", "-f", vm)
	b.roomOfForks()
}

// still measures how long a VM stands still for a snapshot, after it has put some MiB of random bytes into its
// memory.
func (b *bench) still(vm string, more int) {
	b.Helper()
	b.cli("exec", vm, "--", "sh", "-c", fmt.Sprintf("head -c %dM /dev/urandom >/mnt/%d", more, more))
	var still, beside, size []float64
	for range b.pairs {
		s, err := b.client.CreateSnapshot(b.Context(), vm, "", false)
		b.must(err)
		gib := float64(s.Size) / (1 << 30)
		size, still = append(size, gib*1024), append(still, float64(s.Paused))
		beside = append(beside, stillMillis+stillMillisPerGiB*gib)
		b.must(b.client.RemoveSnapshot(b.Context(), s.ID))
	}
	figure := fmt.Sprintf("stands still, with %.0f MiB, beside 50 ms + 1 s per GiB", median(size))
	b.addPairs(figure, "ms", still, beside, 1, false)
}

// forkTimes measures the time from a fork of a snapshot to the first command that has ended in each VM, and what an
// idle fork takes of the host's memory.
func (b *bench) forkTimes(vm string) {
	s, err := b.client.CreateSnapshot(b.Context(), vm, "", false)
	b.must(err)
	defer func() { b.must(b.client.RemoveSnapshot(b.Context(), s.ID)) }()
	var one, many []float64
	for range 3 * b.pairs {
		var made []banger.VM
		one = append(one, millis(timed(func() { made = b.forked(s.Name, 1) })))
		b.removeForks(made)
	}
	var pss []float64
	for range b.pairs {
		var made []banger.VM
		many = append(many, timed(func() { made = b.forked(s.Name, forksAtOnce) }).Seconds())
		time.Sleep(5 * time.Second) // until they idle
		for _, fork := range made {
			pss = append(pss, b.pssOf(fork.ID))
		}
		b.removeForks(made)
	}
	b.addSpread("fork of a snapshot, to its first exec", "ms", one, maxForkMillis)
	b.addSpread(fmt.Sprintf("%d forks, to the first exec of the last", forksAtOnce), "s", many,
		forksAtOnce*maxForkMillis/1000)
	b.addSpread("an idle fork, its shim included", "MiB PSS", pss, maxForkMiB)
}

// forked makes forks and executes a command in each.
func (b *bench) forked(from string, n int) []banger.VM {
	b.Helper()
	made, err := b.client.Fork(b.Context(), banger.Fork{From: from, Number: n}, banger.Discard)
	b.must(err)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i, vm := range made {
		wg.Go(func() { errs[i] = b.execTrue(b.Context(), vm.ID) })
	}
	wg.Wait()
	for _, err := range errs {
		b.must(err)
	}
	return made
}

func (b *bench) removeForks(made []banger.VM) {
	b.Helper()
	for _, vm := range made {
		b.cli("rm", "-f", vm.ID)
	}
}

// pssOf returns what the processes of a VM take of the host's memory, in MiB. Pages that several processes have count
// for each in part.
func (b *bench) pssOf(vm string) (mib float64) {
	b.Helper()
	for _, p := range processes(vm) {
		data, err := os.ReadFile("/proc/" + p.pid + "/smaps_rollup")
		b.must(err)
		_, after, _ := strings.Cut(string(data), "\nPss:")
		kib, err := strconv.Atoi(strings.Fields(after)[0])
		b.must(err)
		mib += float64(kib) / 1024
	}
	return mib
}

// roomOfForks compares the room of a VM that has written a GiB, and of the VM with its forks.
func (b *bench) roomOfForks() {
	vm := b.newVM()
	b.cli("start", "-q", vm)
	b.cli("exec", vm, "--", "sh", "-c", "head -c 1G /dev/urandom >/root/much; sync")
	alone := b.room()
	made := b.forked(vm, forksToMeasure)
	with := b.room()
	b.removeForks(made)
	figure := fmt.Sprintf("room of a VM with 1 GiB and %d forks, beside it alone", forksToMeasure)
	b.addPairs(figure, "MiB", []float64{with}, []float64{alone}, maxForksRoom, false)
	b.cli("rm", "-f", vm)
}

// room returns what VMs, snapshots and layers take of the host's disk, in MiB.
func (b *bench) room() float64 {
	b.Helper()
	total := 0.0
	for _, dir := range []string{"vms", "snapshots", "layers"} {
		out, err := exec.Command("du", "-sk", filepath.Join(b.state, dir)).Output()
		b.must(err)
		kib, err := strconv.Atoi(strings.Fields(string(out))[0])
		b.must(err)
		total += float64(kib) / 1024
	}
	return total
}
