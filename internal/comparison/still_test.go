package comparison_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/comparison"
	"banger/internal/guest"
	"banger/internal/testing/hosttest"
	"banger/internal/testing/vmmtest"
)

// answers checks that an agent answers.
func answers(t *testing.T, agent guest.Client) {
	t.Helper()
	if list, err := (guest.Workspaces{Client: agent}).List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("there are %v, %v", list, err)
	}
}

// helpers lists the helpers that there are.
func helpers(h *hosttest.Host) (names []string) {
	entries, err := os.ReadDir(h.Path("state/helpers/vms"))
	hosttest.Check(h.T, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// nothing checks that nothing of helpers is left.
func nothing(h *hosttest.Host) {
	h.T.Helper()
	if list := left(h); len(list) > 0 {
		h.T.Errorf("left are %q", list)
	}
	if n := len(h.Processes()); n > 0 {
		h.T.Errorf("%d processes are left", n)
	}
}

// TestADiskIsReadForOthers until they release it, by a VM of which nothing is left.
func TestADiskIsReadForOthers(t *testing.T) {
	h := hosttest.New(t)
	s, c := start(h)
	create(h, s, "box", h.Image)
	for range 2 {
		agent, release, err := c.Still(t.Context(), "box")
		hosttest.Check(t, err)
		answers(t, agent)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if _, _, err := c.Still(ctx, "box"); err == nil {
			t.Error("there are two at the same time")
		}
		cancel()
		release(false)
		release(true) // has no effect
		nothing(h)
	}
	if _, _, err := c.Still(t.Context(), "nonesuch"); banger.CodeOf(err) != banger.CodeNotFound {
		t.Errorf("a VM that is not there: %v", err)
	}
	for fault, words := range map[vmmtest.Fault]string{vmmtest.FailToStart: "cannot start a VM that reads the disks",
		vmmtest.DieAtOnce: "the disks cannot be read"} {
		h.Fault(fault)
		if _, _, err := c.Still(t.Context(), "box"); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("a VMM with the fault %s: %v", fault, err)
		}
	}
	h.Fault(vmmtest.NeverAnswer)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, _, err := c.Still(ctx, "box")
		gone <- err
	}()
	h.Await("a helper boots", func() bool { return len(h.Processes()) > 0 })
	cancel()
	if err := <-gone; err == nil {
		t.Error("a helper that never answers is there")
	}
	nothing(h)
}

// TestAHelperIsKept for the next one who reads the same disk, but not for another disk, not beside a comparison, and
// not for long.
func TestAHelperIsKept(t *testing.T) {
	h := hosttest.New(t)
	h.Options.VMMs.VMMs[0].Overlays = true
	s, c := start(h)
	create(h, s, "box", h.Image)
	create(h, s, "other", h.Image)
	use := func(ref string, keep bool) (was []string) {
		t.Helper()
		agent, release, err := c.Still(t.Context(), ref)
		hosttest.Check(t, err)
		answers(t, agent)
		was = helpers(h)
		if len(was) != 1 {
			t.Errorf("there are %q", was)
		}
		release(keep)
		return was
	}
	first := use("box", true)
	if again := use("box", true); again[0] != first[0] {
		t.Errorf("the helper %q was not kept, but there is %q", first, again)
	}
	if other := use("other", true); other[0] == first[0] {
		t.Error("it reads another disk")
	}
	_, err := c.Compare(t.Context(), banger.Comparison{To: "box"}, banger.Discard)
	if err == nil || !strings.Contains(err.Error(), "has no disks to compare") {
		t.Errorf("a comparison: %v", err)
	}
	nothing(h)
	last := use("box", true)
	if again := use("box", false); again[0] != last[0] {
		t.Error("it was not kept")
	}
	nothing(h)
	use("box", true)
	h.Await("it ends when nobody comes", func() bool { return len(left(h)) == 0 })
	nothing(h)
}

// TestAHelperEndsWithItsDaemon while it is used, and while it is kept.
func TestAHelperEndsWithItsDaemon(t *testing.T) {
	h := hosttest.New(t)
	s := h.Supervisor()
	create(h, s, "box", h.Image)
	c := comparison.New(s.Templates().Plans(), s.Snapshots(), h.Options.ShimArgv, slog.New(slog.DiscardHandler))
	agent, release, err := c.Still(t.Context(), "box")
	hosttest.Check(t, err)
	stream, err := agent.Dial(t.Context())
	hosttest.Check(t, err)
	defer stream.Close()
	c.Close()
	nothing(h)
	if n, err := stream.Read(make([]byte, 1)); err == nil {
		t.Errorf("its stream has %d bytes", n)
	}
	release(true)
	if _, _, err := c.Still(t.Context(), "box"); banger.CodeOf(err) != banger.CodeUnavailable {
		t.Errorf("after its end: %v", err)
	}
	nothing(h)
	c = comparison.New(s.Templates().Plans(), s.Snapshots(), h.Options.ShimArgv, slog.New(slog.DiscardHandler))
	_, release, err = c.Still(t.Context(), "box")
	hosttest.Check(t, err)
	release(true)
	c.Close()
	nothing(h)
	if list, _ := filepath.Glob(h.Path("state/layers/*")); len(list) > 0 {
		t.Errorf("the layers %q are left", list)
	}
}
