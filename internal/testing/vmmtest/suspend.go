package vmmtest

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/vmm"
)

// Testimony is what a witness in the guest has seen since its start (guesttest/echo).
type Testimony struct {
	Backwards bool
	Gaps      []struct {
		Length time.Duration
		After  time.Time
	}
	Kept, Inside string
}

// testimonyOf asks the witness, and checks what must be true at any time.
func testimonyOf(t *testing.T, vm *VM) (s Testimony) {
	t.Helper()
	if err := json.Unmarshal([]byte(Output(t, vm, "/bin/testify")), &s); err != nil {
		t.Fatal(err)
	}
	if s.Backwards {
		t.Error("the monotonic time went back")
	}
	if s.Kept != "kept in memory" {
		t.Errorf("its file in memory holds %q", s.Kept)
	}
	if s.Inside != "word" {
		t.Errorf("its connection inside the guest says %q", s.Inside)
	}
	return s
}

// SuspendAndRestore takes a snapshot of a VM whose guest has a witness, ends the VM, and continues the snapshot in
// another VM of the same configuration. It checks that nothing in the guest runs until it has its identity.
func SuspendAndRestore(t *testing.T, d vmm.Driver, vm *VM, c vmm.Config) *VM {
	t.Helper()
	suspend(t, vm)
	vm = continued(t, d, vm, c)
	wakeUp(t, vm)
	return vm
}

// continued takes a snapshot of a VM, ends the VM, and continues the snapshot in another VM of the same configuration.
func continued(t *testing.T, d vmm.Driver, vm *VM, c vmm.Config) *VM {
	t.Helper()
	if err := vm.Pause(ctx(t)); err != nil {
		t.Fatal(err)
	}
	c.Restore = SnapshotDir(t, c)
	if err := vm.Process.(vmm.Snapshotter).Snapshot(ctx(t), c.Restore); err != nil {
		t.Fatal(err)
	}
	if err := vm.Kill(); err != nil {
		t.Fatal(err)
	}
	vm.AwaitEnd(t)
	return Start(t, d, c)
}

// suspendTwice starts a witness as the main command. It suspends the guest and lets it go on, as after a snapshot that
// fails, and suspends it again.
func suspendTwice(t *testing.T, vm *VM) {
	t.Helper()
	client := execute(t, vm, banger.Exec{Args: []string{"/bin/witness"}, Main: true})
	if kind, data, err := client.Next(); err != nil || kind != frame.Started {
		t.Fatalf("the witness begins with frame %d %q, %v", kind, data, err)
	}
	AwaitOutput(t, vm, "ready\n")
	other := execute(t, vm, banger.Exec{Args: []string{"/bin/cat"}, Stdin: true})
	if kind, data, err := other.Next(); err != nil || kind != frame.Started {
		t.Fatalf("a command begins with frame %d %q, %v", kind, data, err)
	}
	suspend(t, vm)
	wantFarewell(t, client, "its main command goes on")
	wantFarewell(t, other, "the command was hung up")
	if _, err := Try(t, vm, "/bin/echo"); err == nil || !strings.Contains(err.Error(), "is being suspended") {
		t.Errorf("a command in a suspended guest gives %v", err)
	}
	if _, err := vm.Agent.Thaw(ctx(t)); err != nil {
		t.Fatal(err)
	}
	testimonyOf(t, vm)
	suspend(t, vm)
}

// AwaitOutput waits until the main command has written text, which comes on no stream of a client.
func AwaitOutput(t *testing.T, vm *VM, text string) {
	t.Helper()
	within, enough := context.WithCancel(ctx(t))
	defer enough()
	said := ""
	err := vm.Agent.Output(within, guest.FirstOutput, func(r guest.Record) {
		if said += string(r.Data); strings.Contains(said, text) {
			enough()
		}
	})
	if !strings.Contains(said, text) {
		t.Fatalf("the main command says %q, not %q, %v", said, text, err)
	}
}

func suspend(t *testing.T, vm *VM) {
	t.Helper()
	start := time.Now()
	if _, err := vm.Agent.Suspend(ctx(t)); err != nil {
		t.Fatal(err)
	}
	t.Logf("the guest was ready for a snapshot after %d ms", time.Since(start).Milliseconds())
}

// execute starts a command, whose stream ends with the test.
func execute(t *testing.T, vm *VM, e banger.Exec) *frame.Reader {
	t.Helper()
	conn, err := vm.Agent.Exec(ctx(t), e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(patience))
	return frame.NewReader(conn)
}

// wantFarewell checks that a stream ends with the sentence of a suspend.
func wantFarewell(t *testing.T, frames *frame.Reader, words string) {
	t.Helper()
	kind, data, err := frames.Next()
	var said banger.Error
	if jerr := json.Unmarshal(data, &said); err != nil || jerr != nil || kind != frame.Error ||
		!strings.Contains(said.Message, "the VM was suspended") || !strings.Contains(said.Message, words) {
		t.Errorf("a stream ends with frame %d %q, %v", kind, data, err)
	}
	if _, _, err := frames.Next(); err == nil {
		t.Error("the stream goes on after its error")
	}
}

// stillness is how long a restored guest is left without its new identity.
const stillness = time.Second

// wakeUp tells a restored guest who it is, and checks that nothing in it has run before.
func wakeUp(t *testing.T, vm *VM) {
	t.Helper()
	time.Sleep(stillness) // in which programs could run
	if _, err := Try(t, vm, "/bin/echo"); err == nil || !strings.Contains(err.Error(), "is being suspended") {
		t.Errorf("a command before the new identity gives %v", err)
	}
	before := time.Now()
	identity := guest.Config{Hostname: "after", Seed: make([]byte, guest.MinSeed)}
	if _, err := vm.Agent.Restored(ctx(t), identity); err != nil {
		t.Fatal(err)
	}
	after := time.Now()
	t.Logf("the guest had its identity after %d ms", after.Sub(before).Milliseconds())
	s := testimonyOf(t, vm)
	for _, g := range slices.Backward(s.Gaps) {
		if g.Length >= stillness-TimeLimit && g.After.After(before) && g.After.Before(after.Add(time.Second)) {
			return
		}
	}
	t.Errorf("between %s and %s nothing begins to run: %+v", before, after, s.Gaps)
}
