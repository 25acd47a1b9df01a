package supervisor_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/testing/hosttest"
	"banger/internal/testing/processtest"
	"banger/internal/testing/vmmtest"
	"banger/internal/vmm/choice"
)

func TestCreateStartStopStartRemove(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	ctx := h.ctx()
	vm, err := s.Create(ctx, h.spec("box"), nil, false, banger.Discard)
	check(t, err)
	if vm.State != banger.StateCreated || vm.VMM != "memory 1.0" || vm.Isolation != banger.IsolationEmulated ||
		vm.Kernel != "test" || vm.Main != nil {
		t.Errorf("the new VM is %+v", vm)
	}
	if st, err := os.Stat(h.path("state/vms/" + vm.ID + "/disk.ext4")); err != nil || st.Size() != banger.MinDisk {
		t.Errorf("its disk: %v, %v", st, err)
	}
	for range 2 {
		if _, err := s.Start(ctx, "box", false, false, banger.Discard); err != nil {
			t.Fatal(err)
		}
		if up := h.wantState(s, "box", banger.StateRunning, ""); up.StartedAt.IsZero() {
			t.Error("it is not known since when it runs")
		}
		if out, code := h.sh(s, "box", `echo "$FROM"; exit 7`); out != "image\n" || code != 7 {
			t.Errorf("a command in it prints %q and exits with %d", out, code)
		}
		_, err := s.Start(ctx, "box", false, false, banger.Discard)
		wantCode(t, err, banger.CodeConflict)
		wantCode(t, s.Remove(ctx, "box", false), banger.CodeConflict)
		if _, err := s.Stop(ctx, vm.ID[:5], time.Second); err != nil {
			t.Fatal(err)
		}
		h.wantState(s, "box", banger.StateStopped, "stopped by the user")
		if slices.ContainsFunc(h.files(),
			func(f string) bool { return strings.Contains(f, "sock") || strings.HasSuffix(f, "/ram") }) {
			t.Errorf("after the stop there is %q", h.files())
		}
		if _, err := s.Stop(ctx, "box", time.Second); err != nil {
			t.Errorf("a second stop: %v", err)
		}
		_, err = s.Guests().Exec(ctx, "box", banger.Exec{Args: []string{"true"}})
		wantCode(t, err, banger.CodeConflict)
		_, err = s.Kill(ctx, "box", 9)
		wantCode(t, err, banger.CodeConflict)
	}
	check(t, s.Remove(ctx, "box", false))
	_, err = s.Get("box")
	wantCode(t, err, banger.CodeNotFound)
	h.wantNothing(s)
}

// TestNames checks that a name belongs to one VM, from creation or by renaming.
func TestNames(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	ctx := h.ctx()
	for _, name := range []string{"one", "two"} {
		_, err := s.Create(ctx, h.spec(name), nil, false, banger.Discard)
		check(t, err)
	}
	_, err := s.Create(ctx, h.spec("one"), nil, true, banger.Discard)
	wantCode(t, err, banger.CodeConflict)
	_, err = s.Rename(ctx, "two", "one")
	wantCode(t, err, banger.CodeConflict)
	_, err = s.Rename(ctx, "two", "No Name")
	wantCode(t, err, banger.CodeInvalid)
	h.wantState(s, "one", banger.StateCreated, "")
	h.wantState(s, "two", banger.StateCreated, "")
	_, err = s.Rename(ctx, "two", "three")
	check(t, err)
	h.wantState(s, "three", banger.StateCreated, "")
	_, err = s.Rename(ctx, "one", "two") // the name is free now
	check(t, err)
	random, err := s.Create(ctx, h.spec(""), nil, false, banger.Discard)
	if err != nil || banger.CheckName(random.Name) != nil {
		t.Errorf("without a wish the name is %q, %v", random.Name, err)
	}
	_, err = s.Get("")
	wantCode(t, err, banger.CodeNotFound)
	if n := len(h.processes()); n != 0 {
		t.Errorf("%d processes run, though nothing was started", n)
	}
}

// TestASizeThatMakesSlowIsWarnedOf before the VM is created.
func TestASizeThatMakesSlowIsWarnedOf(t *testing.T) {
	h := newHost(t)
	h.opts.CPUs = 1
	s := h.daemon()
	spec := h.spec("box")
	spec.CPUs = 2
	var mu sync.Mutex
	var warned []string
	_, err := s.Create(h.ctx(), spec, nil, false, func(e banger.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Stage == "warning" {
			warned = append(warned, e.Text)
		}
	})
	check(t, err)
	if len(warned) != 1 || warned[0] != "the VM has 2 CPUs and this host 1, so it will be slow" {
		t.Errorf("it warns: %q", warned)
	}
}

// TestAFailedCreateLeavesNothing at whichever step it fails.
func TestAFailedCreateLeavesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*host, *banger.Spec)
		code  banger.Code
		words string
	}{
		"nothing is asked for": {func(_ *host, s *banger.Spec) { *s = banger.Spec{} }, banger.CodeInvalid,
			"no image"},
		"more memory than the host has": {func(h *host, s *banger.Spec) { h.opts.Memory, s.Memory = 200<<20, 201<<20 },
			banger.CodeInvalid, "this host has"},
		"far too many CPUs": {func(h *host, s *banger.Spec) { h.opts.CPUs, s.CPUs = 2, 9 }, banger.CodeInvalid,
			"at most 8"},
		"no such VMM": {func(_ *host, s *banger.Spec) { s.VMM = banger.VMMQEMU }, banger.CodeUnavailable,
			"qemu"},
		"the VMM is not installed": {func(h *host, _ *banger.Spec) {
			h.opts.VMMs.VMMs = []choice.VMM{hosttest.VMM("/nonexistent")}
		}, banger.CodeUnavailable, "not built"},
		"no such image": {func(_ *host, s *banger.Spec) { s.Image = "oci:/nonexistent" }, banger.CodeNotFound,
			"nonexistent"},
		"no such kernel": {func(_ *host, s *banger.Spec) { s.Kernel = "other" }, banger.CodeNotFound, "other"},
		"no command to run": {func(_ *host, s *banger.Spec) { s.Entrypoint, s.Attach = []string{}, true },
			banger.CodeInvalid, "no command"},
		"the agent is absent": {func(h *host, _ *banger.Spec) { h.opts.Agent = nil }, banger.CodeInternal,
			"without a guest agent"},
		"no shim to start": {func(h *host, _ *banger.Spec) { h.opts.ShimArgv = []string{"/nonexistent"} },
			banger.CodeUnavailable, "nonexistent"},
		"a shim that ends": {func(h *host, _ *banger.Spec) { h.opts.ShimArgv = []string{"/bin/true"} },
			banger.CodeUnavailable, "the shim ended"},
		"the driver fails": {func(h *host, _ *banger.Spec) { h.fault(vmmtest.FailToStart) }, banger.CodeUnavailable,
			"the test wants no VM"},
		"the main command is absent": {func(_ *host, s *banger.Spec) { s.Cmd = []string{"/nonexistent/program"} },
			banger.CodeCommandAbsent, "nonexistent"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			spec := h.spec("box")
			c.spoil(h, &spec)
			s := h.daemon()
			_, err := s.Create(h.ctx(), spec, nil, true, banger.Discard)
			wantCode(t, err, c.code)
			if err != nil && !strings.Contains(err.Error(), c.words) {
				t.Errorf("the error is %v, not one with %q", err, c.words)
			}
			h.wantNothing(s)
		})
	}
}

// TestAVMThatDidNotBootStays because its console log is needed, unless it was created with AutoRemove. The error's
// hint names only a VM that stays.
func TestAVMThatDidNotBootStays(t *testing.T) {
	for name, c := range map[string]struct {
		faults []vmmtest.Fault
		words  string
	}{
		"the VMM dies": {[]vmmtest.Fault{vmmtest.DieAtOnce}, "killed by signal 9"},
		"the guest panics twice": {[]vmmtest.Fault{vmmtest.PanicAtBoot, vmmtest.PanicAtBoot},
			"panicked; its console ends with: Kernel panic: " +
				strings.TrimPrefix(vmmtest.PanicText, "Kernel panic - not syncing: ")},
	} {
		for _, remove := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, remove %v", name, remove), func(t *testing.T) {
				h := newHost(t)
				h.fault(c.faults...)
				s := h.daemon()
				spec := h.spec("box")
				spec.AutoRemove = remove
				_, err := s.Create(h.ctx(), spec, nil, true, banger.Discard)
				wantCode(t, err, banger.CodeGuest)
				if !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), "logs --console box") == remove {
					t.Errorf("the error is %v", err)
				}
				if remove {
					h.wantNothing(s)
					return
				}
				h.wantState(s, "box", banger.StateFailed, c.words)
				s.Close()
				s = h.daemon() // the row must have been committed
				h.wantState(s, "box", banger.StateFailed, c.words)
				_, err = s.Start(h.ctx(), "box", false, false, banger.Discard)
				check(t, err)
				h.wantState(s, "box", banger.StateRunning, "")
			})
		}
	}
}

// TestAnInitThatIsLateIsNoFailure: the VM runs, and the user sees a warning.
func TestAnInitThatIsLateIsNoFailure(t *testing.T) {
	h := newHost(t)
	h.opts.InitTime = 50 * time.Millisecond
	s := h.daemon()
	spec := h.spec("box")
	spec.Init = banger.InitImage
	var told []string
	_, err := s.Create(h.ctx(), spec, nil, true, func(e banger.Event) { told = append(told, e.Text) })
	check(t, err)
	h.wantState(s, "box", banger.StateRunning, "init did not answer within 50ms")
	if !slices.ContainsFunc(told, func(s string) bool { return strings.HasPrefix(s, "warning: the init of box") }) {
		t.Errorf("the user is told only %q", told)
	}
	check(t, errOf(s.Stop(h.ctx(), "box", time.Second)))
	h.wantState(s, "box", banger.StateStopped, "stopped by the user")
	h.run(s, h.spec("other"))
	if vm := h.wantState(s, "other", banger.StateRunning, ""); vm.Reason != "" {
		t.Errorf("without such an init it is running because %q", vm.Reason)
	}
}

// TestACreateThatIsCanceledLeavesNothing: the user cancels while a guest never answers.
func TestACreateThatIsCanceledLeavesNothing(t *testing.T) {
	h := newHost(t)
	h.fault(vmmtest.NeverAnswer)
	s := h.daemon()
	ctx, cancel := context.WithCancel(h.ctx())
	go func() {
		h.await("the guest hangs", func() bool { return len(h.processes()) == 2 })
		cancel()
	}()
	_, err := s.Create(ctx, h.spec("box"), nil, true, banger.Discard)
	wantCode(t, err, banger.CodeCanceled)
	h.wantNothing(s)
	check(t, errOf(s.Create(h.ctx(), h.spec("box"), nil, true, banger.Discard))) // the name is free
}

func errOf[T any](_ T, err error) error { return err }

// TestAPanicAtBootIsTriedAgain once, because emulators have rare bugs.
func TestAPanicAtBootIsTriedAgain(t *testing.T) {
	h := newHost(t)
	h.fault(vmmtest.PanicAtBoot)
	s := h.daemon()
	var told []string
	_, err := s.Create(h.ctx(), h.spec("box"), nil, true, func(e banger.Event) { told = append(told, e.Text) })
	check(t, err)
	h.wantState(s, "box", banger.StateRunning, "")
	if !slices.ContainsFunc(told, func(s string) bool { return strings.Contains(s, "once more") }) {
		t.Errorf("the user is told only %q", told)
	}
	var console bytes.Buffer
	check(t, s.Guests().Logs(h.ctx(), "box", -1, false, &console))
	if n := strings.Count(console.String(), vmmtest.PanicText); n != 1 {
		t.Errorf("the console shows %d panics:\n%s", n, &console)
	}
}

// TestAFailedStartKeepsTheVM with the reason, and the VM can be started again.
func TestAFailedStartKeepsTheVM(t *testing.T) {
	for fault, reason := range map[vmmtest.Fault]string{
		vmmtest.FailToStart: "the test wants no VM",
		vmmtest.DieAtOnce:   "killed by signal 9",
	} {
		t.Run(string(fault), func(t *testing.T) {
			h := newHost(t)
			s := h.daemon()
			_, err := s.Create(h.ctx(), h.spec("box"), nil, false, banger.Discard)
			check(t, err)
			h.fault(fault)
			if _, err := s.Start(h.ctx(), "box", false, false, banger.Discard); err == nil {
				t.Fatal("it starts all the same")
			}
			h.wantState(s, "box", banger.StateFailed, reason)
			h.await("no process is left", func() bool { return len(h.processes()) == 0 })
			_, err = s.Start(h.ctx(), "box", false, false, banger.Discard)
			check(t, err)
			h.wantState(s, "box", banger.StateRunning, "")
		})
	}
}

// TestAFailedStartOfAPassingVMIsTold with its own reason, although the VM is removed.
func TestAFailedStartOfAPassingVMIsTold(t *testing.T) {
	processtest.Long(t)
	h := newHost(t)
	s := h.daemon()
	spec := h.spec("box")
	spec.AutoRemove = true
	for range 50 { // the VM's end and the answer once had a race
		h.fault(vmmtest.FailToStart)
		_, err := s.Create(h.ctx(), spec, nil, true, banger.Discard)
		if err == nil || !strings.Contains(err.Error(), "the test wants no VM") {
			t.Fatalf("the creator is told %v", err)
		}
		h.wantNothing(s)
	}
}
