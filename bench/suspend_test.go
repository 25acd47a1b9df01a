//go:build bench

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// The bounds of suspended VMs. A suspension may take half a second, and one and a half times as long as dd takes to
// write the same bytes.
const (
	maxResumeRatio  = 0.20
	maxResumeMillis = 350
	suspendBase     = 0.5
	suspendFactor   = 1.5
	cycles          = 10
)

// suspend compares a wake by exec with a cold boot, and a suspension with the bare writing of its bytes, at the first
// cycle and at the tenth.
func (b *bench) suspend() {
	var wake, cold, first, last, firstBound, lastBound []float64
	for i := range b.pairs {
		vm := b.newVM()
		cold = append(cold, timed(func() {
			b.cli("start", "-q", vm)
			b.cli("exec", vm, "true")
		}).Seconds())
		for cycle := range cycles {
			took := timed(func() { b.cli("suspend", "-q", vm) }).Seconds()
			if list := b.processesOf(vm); len(list) > 0 {
				b.Errorf("a suspended VM has the processes %q, and so takes memory", list)
			}
			bound := suspendBase + suspendFactor*b.dd(b.snapshotSize(vm))
			switch cycle {
			case 0:
				first, firstBound = append(first, took), append(firstBound, bound)
			case cycles - 1:
				last, lastBound = append(last, took), append(lastBound, bound)
			}
			took = timed(func() { b.cli("exec", vm, "true") }).Seconds()
			if cycle == cycles-1 {
				wake = append(wake, took)
			}
		}
		b.cli("rm", "-f", vm)
		b.Logf("suspend %d of %d: cold %.2f s, wake %.2f s, suspend %.2f s and %.2f s", i+1, b.pairs, cold[i], wake[i],
			first[i], last[i])
	}
	b.addPairs("wake by exec, beside a cold start and exec", "s", wake, cold, maxResumeRatio, false)
	var ms []float64
	for _, s := range wake {
		ms = append(ms, s*1000)
	}
	b.add("wake by exec", "ms", ms, maxResumeMillis)
	b.addPairs("suspend, beside 0.5 s + 1.5 x dd", "s", first, firstBound, 1, false)
	b.addPairs("the tenth suspend, beside 0.5 s + 1.5 x dd", "s", last, lastBound, 1, false)
}

// processesOf returns the arguments of the processes of a VM. Each of them names it.
func (b *bench) processesOf(vm string) (list []string) {
	b.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	b.must(err)
	for _, path := range all {
		if data, err := os.ReadFile(path); err == nil && strings.Contains(string(data), vm) {
			list = append(list, string(data))
		}
	}
	return list
}

// snapshotSize returns how many bytes of the disk the snapshot of a VM takes.
func (b *bench) snapshotSize(vm string) (n int64) {
	b.Helper()
	files, err := filepath.Glob(filepath.Join(b.state, "vms", vm, "snapshot.*"))
	b.must(err)
	for _, f := range files {
		info, err := os.Stat(f)
		b.must(err)
		n += info.Sys().(*syscall.Stat_t).Blocks * 512
	}
	return n
}

// dd returns how many seconds dd takes to write n bytes to the disk of the state.
func (b *bench) dd(n int64) float64 {
	b.Helper()
	to := filepath.Join(b.scratch, "dd")
	defer os.Remove(to)
	cmd := exec.CommandContext(b.Context(), "dd", "if=/dev/zero", "of="+to, "bs=1M", fmt.Sprintf("count=%d", n>>20),
		"conv=fsync", "status=none")
	return timed(func() { b.must(cmd.Run()) }).Seconds()
}
