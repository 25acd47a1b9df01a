package shim_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/output"
	"banger/internal/shim"
	"banger/internal/testing/hosttest"
)

func TestMain(m *testing.M) { os.Exit(hosttest.Main(m)) }

// TestAShimOfItsOwnProcess starts a shim as the daemon does, finds it among the processes, and reads what it leaves.
func TestAShimOfItsOwnProcess(t *testing.T) {
	h := hosttest.New(t)
	s := h.Supervisor()
	ctx, cancel := context.WithTimeout(t.Context(), hosttest.Patience)
	defer cancel()
	vm, err := s.Create(ctx, banger.Spec{Name: "box", Image: h.Image, Disk: banger.MinDisk,
		Cmd: []string{"sh", "-c", "echo one; echo two; sleep 1000"}}, nil, true, banger.Discard)
	hosttest.Check(t, err)
	dirs := shim.Processes{VMs: h.Path("state/vms"), Argv: h.Options.ShimArgv}
	if !dirs.Any() || !dirs.Has(vm.ID) || dirs.Has("0123456789ab") {
		t.Error("the shim is not found")
	}
	c := shim.Client{Dir: h.Path("state/vms/" + vm.ID), Run: h.Path("run/vms/" + vm.ID)}
	if err := c.SyncClock(ctx); err != nil && !strings.Contains(err.Error(), "clock") {
		t.Errorf("the clock: %v", err)
	}
	h.Await("the output has both lines", func() bool {
		var frames bytes.Buffer
		err := output.Read(shim.OutputPath(c.Dir), banger.LogView{Tail: 2}, &frames)
		return err == nil && hosttest.Output(t, &frames) == "one\ntwo\n"
	})
	var console bytes.Buffer
	if err := shim.ReadConsole(c.Dir, -1, &console); err != nil || strings.Contains(console.String(), "two") {
		t.Errorf("the console has %q, %v", &console, err)
	}
	hosttest.Check(t, c.AddRefusal(ctx, banger.Decision{Protocol: "udp", Rule: "one"}))
	hosttest.Check(t, c.AddRefusal(ctx, banger.Decision{Protocol: "udp", Rule: "two", Address: "192.0.2.1"}))

	stream, err := c.Offer(ctx, guest.AgentPort)
	hosttest.Check(t, err)
	hosttest.Check(t, stream.CloseWrite())
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	if given, err := stream.Give(far); given || err != nil {
		t.Errorf("a pipe gets the stream: %t, %v", given, err)
	}
	stream.Close()

	dirs.Kill("0123456789ab", time.Second) // there is no such VM
	if _, err := c.Status(ctx); err != nil {
		t.Errorf("it does not answer: %v", err)
	}
	hosttest.Check(t, c.Kill(ctx))
	h.Await("the shim has ended", func() bool { return !dirs.Has(vm.ID) })
	if exit, err := c.LastExit(); err != nil || exit.Signal != 9 {
		t.Errorf("the exit record is %+v, %v", exit, err)
	}
	for tail, want := range map[int]int{-1: 2, 1: 1, 0: 0} {
		var refusals bytes.Buffer
		hosttest.Check(t, shim.ReadDecisions(c.Dir, false, tail, &refusals))
		if got := bytes.Count(refusals.Bytes(), []byte("\n")); got != want {
			t.Errorf("of the last %d refusals there are %s", tail, &refusals)
		}
	}
}

// TestAShimThatIsKilledTakesItsVMWithIt checks the end without the shim's cooperation.
func TestAShimThatIsKilledTakesItsVMWithIt(t *testing.T) {
	h := hosttest.New(t)
	s := h.Supervisor()
	spec := banger.Spec{Name: "box", Image: h.Image, Disk: banger.MinDisk}
	vm, err := s.Create(t.Context(), spec, nil, true, banger.Discard)
	hosttest.Check(t, err)
	dirs := shim.Processes{VMs: h.Path("state/vms"), Argv: h.Options.ShimArgv}
	dirs.Kill(vm.ID, hosttest.Patience)
	h.Await("no process is left", func() bool { return len(h.Processes()) == 0 })
	if got, err := s.Wait(t.Context(), "box"); err != nil || got.State != banger.StateFailed {
		t.Errorf("it is %+v, %v", got, err)
	}
}

// TestAShimThatDoesNotStart checks that its own words are the error.
func TestAShimThatDoesNotStart(t *testing.T) {
	dir, run := t.TempDir(), t.TempDir()
	for _, name := range []string{"kernel", "initrd"} {
		hosttest.Check(t, os.WriteFile(dir+"/"+name, nil, 0o600))
	}
	spec := shim.Spec{Driver: "memory"}
	spec.VM.Kernel, spec.VM.Initrd = dir+"/kernel", dir+"/initrd"
	for script, want := range map[string]string{
		"echo no room here >&3": "no room here",
		"exit 1":                "the shim ended before the VM ran",
	} {
		c := shim.Client{Dir: dir, Run: run}
		err := c.Start(t.Context(), []string{"/bin/sh", "-c", script}, spec, shim.Identity{})
		if err == nil || err.Error() != want {
			t.Errorf("it is %v, not %s", err, want)
		}
	}
	c := shim.Client{Dir: dir, Run: run}
	if err := c.Start(t.Context(), []string{"/no/such"}, spec, shim.Identity{}); err == nil ||
		!strings.HasPrefix(err.Error(), "starting the shim: ") {
		t.Errorf("it is %v", err)
	}
	spec.VM.Kernel = dir + "/absent"
	if err := c.Start(t.Context(), []string{"/bin/true"}, spec, shim.Identity{}); !os.IsNotExist(err) {
		t.Errorf("without a kernel it is %v", err)
	}
}
