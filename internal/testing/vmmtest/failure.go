package vmmtest

import (
	"os/exec"
	"strconv"
	"testing"
	"time"

	"banger/internal/vmm"
)

// explain logs what may say why a test of a VM has failed: its end, its console, and what the threads of its
// processes do. A guest that stands still uses no CPU between the two lists of threads, and one that spins uses a
// second.
func explain(t *testing.T, id string, p vmm.Process, console *Console) {
	t.Logf("the console of %s says:\n%s", id, console)
	select {
	case <-p.Done():
		t.Logf("%s had ended: %+v", id, p.Exit())
		return
	default:
	}
	pid := strconv.Itoa(p.Handle().PID)
	for range 2 {
		threads, _ := exec.Command("ps", "-L", "-o", "pid,tid,stat,cputimes,wchan:24,comm", "--pid", pid,
			"--ppid", pid).Output()
		t.Logf("the threads of %s:\n%s", id, threads)
		time.Sleep(time.Second)
	}
}
