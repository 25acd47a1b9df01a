// Package processtest measures what the process of a test uses. It imports nothing of ours, so that
// the tests of all packages can import it.
package processtest

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// CPUTime returns the CPU time that the process has used.
func CPUTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Growth returns by how many bytes the memory that the process holds has grown at most while f runs.
func Growth(t testing.TB, f func()) int64 {
	t.Helper()
	debug.FreeOSMemory() // what is free would hide the growth
	// This resets the peak (proc_pid_clear_refs(5)).
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
	before := status(t, "VmRSS:")
	f()
	return status(t, "VmHWM:") - before
}

// status returns a size of proc_pid_status(5).
func status(t testing.TB, key string) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), key)
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// Long skips a test that takes several seconds, in go test -short.
func Long(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("this takes seconds; go test without -short runs it")
	}
}
