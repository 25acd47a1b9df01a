package qemu_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"testing"

	"banger"
	"banger/internal/vmm/qemu"
	"banger/internal/vmm/vmmtest"
)

// TestMuchGoesByTheGuestsMemory, wherever the guest has it, and comes back unchanged.
func TestMuchGoesByTheGuestsMemory(t *testing.T) {
	for name, mib := range map[string]int{"low memory": 256, "memory on both sides of the hole": 4096} {
		t.Run(name, func(t *testing.T) {
			c := config(t)
			c.MemoryMiB = mib
			vm := vmmtest.Start(t, qemu.Driver{}, c)
			for range 2 {
				catMuch(t, vm)
			}
			if !vm.Shared() {
				t.Error("all went by the channel")
			}
		})
	}
}

func catMuch(t *testing.T, vm *vmmtest.VM) {
	t.Helper()
	sent := make([]byte, 16<<20)
	rand.NewChaCha8([32]byte{1}).Read(sent)
	conn, err := vm.Agent.Exec(t.Context(), banger.Exec{Args: []string{"/bin/cat"}, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	wrote := make(chan error, 1)
	go func() {
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), banger.MaxData)
			if err := banger.WriteFrame(conn, banger.FrameStdin, rest[:n]); err != nil {
				wrote <- err
				return
			}
			rest = rest[n:]
		}
		wrote <- banger.WriteFrame(conn, banger.FrameStdinEOF, nil)
	}()
	var got bytes.Buffer
	for frames := banger.NewFrameReader(conn); ; {
		kind, payload, err := frames.Next()
		if err != nil {
			t.Fatal(err)
		}
		if kind == banger.FrameStdout {
			got.Write(payload)
		}
		if kind == banger.FrameExit {
			var exit banger.Exit
			if err := json.Unmarshal(payload, &exit); err != nil || exit.Status() != 0 {
				t.Fatalf("the command ended with %s, %v", payload, err)
			}
			break
		}
	}
	if err := <-wrote; err != nil || !bytes.Equal(got.Bytes(), sent) {
		t.Errorf("%d bytes come back of %d, %v", got.Len(), len(sent), err)
	}
}
