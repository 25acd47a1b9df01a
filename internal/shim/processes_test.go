package shim_test

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"banger/internal/shim"
	"banger/internal/testing/hosttest"
)

// TestTheEndOfAShimIsAwaited uses a process that ends when its stdin is closed, and one of another program, which does
// not end and is not killed.
func TestTheEndOfAShimIsAwaited(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, script string
		limit        time.Duration
		stays        bool
	}{
		{"ends", "read x; :", time.Minute, false},
		{"stays", "while :; do sleep 60; done", time.Millisecond, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			const id = "0123456789ab"
			p := shim.Processes{VMs: t.TempDir(), Argv: []string{"sh", "-c", test.script, "shim"}}
			cmd := exec.Command("sh", append(p.Argv[1:], filepath.Join(p.VMs, id))...)
			stdin, err := cmd.StdinPipe()
			hosttest.Check(t, err)
			hosttest.Check(t, cmd.Start())
			t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
			for !p.Has(id) { // it has begun to be a process, but not yet to be this one
			}
			go stdin.Close()
			p.AwaitEnd(id, test.limit)
			if p.Has(id) != test.stays {
				t.Errorf("the process is there: %t", !test.stays)
			}
		})
	}
}
