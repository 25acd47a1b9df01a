package qemu_test

import (
	"math/rand/v2"
	"testing"

	"banger/internal/vmm/qemu"
	"banger/internal/vmm/vmmtest"
)

// TestMuchGoesByTheGuestsMemory, wherever the guest has it, and comes back unchanged.
func TestMuchGoesByTheGuestsMemory(t *testing.T) {
	sent := make([]byte, 16<<20)
	rand.NewChaCha8([32]byte{1}).Read(sent)
	for name, mib := range map[string]int{"low memory": 256, "memory on both sides of the hole": 4096} {
		t.Run(name, func(t *testing.T) {
			c := config(t)
			c.MemoryMiB = mib
			vm := vmmtest.Start(t, qemu.Driver{}, c)
			for range 2 {
				if got := vmmtest.Pipe(t, vm, sent, "/bin/cat"); got != string(sent) {
					t.Fatalf("%d bytes come back of %d", len(got), len(sent))
				}
			}
			if !vm.Shared() {
				t.Error("all went by the channel")
			}
		})
	}
}
