package comparison_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"banger"
	"banger/internal/comparison"
	"banger/internal/supervisor"
	"banger/internal/testing/hosttest"
	"banger/internal/testing/vmmtest"
)

// TestMain also runs the shims.
func TestMain(m *testing.M) { os.Exit(hosttest.Main(m)) }

// start returns the VMs of a host, and what compares them.
func start(h *hosttest.Host) (*supervisor.Supervisor, *comparison.Comparer) {
	s := h.Supervisor()
	c := comparison.New(s.Templates().Plans(), s.Snapshots(), h.Options.ShimArgv, slog.New(slog.DiscardHandler))
	h.T.Cleanup(c.Close)
	return s, c
}

// create makes a VM that does not run.
func create(h *hosttest.Host, s *supervisor.Supervisor, name, image string) {
	h.T.Helper()
	spec := banger.Spec{Name: name, Image: image, Disk: banger.MinDisk}
	_, err := s.Create(h.T.Context(), spec, nil, false, banger.Discard)
	hosttest.Check(h.T, err)
}

// left lists what is left of comparisons.
func left(h *hosttest.Host) (list []string) {
	for _, pattern := range []string{"state/helpers/vms/*", "run/helpers/vms/*", "state/snapshots/*"} {
		found, _ := filepath.Glob(filepath.Join(h.Dir, pattern))
		list = append(list, found...)
	}
	return list
}

// TestAHelperLeavesNothing, whatever goes wrong: its VMM does not start, its agent has no disks as all agents in
// memory, or nobody waits. Its place is free then.
func TestAHelperLeavesNothing(t *testing.T) {
	h := hosttest.New(t)
	s, c := start(h)
	create(h, s, "box", h.Image)
	compare := func(ctx context.Context) error {
		_, err := c.Compare(ctx, banger.Comparison{To: "box"}, func(e banger.Event) {
			if e.File != nil {
				t.Errorf("it says that %+v differs", e.File)
			}
		})
		return err
	}
	for range 2 {
		if err := compare(t.Context()); err == nil || !strings.Contains(err.Error(), "has no disks to compare") {
			t.Errorf("an agent without disks: %v", err)
		}
		if list := left(h); len(list) > 0 {
			t.Errorf("it leaves %q", list)
		}
	}
	for fault, words := range map[vmmtest.Fault]string{vmmtest.FailToStart: "cannot start a VM that reads the disks",
		vmmtest.DieAtOnce: "the disks cannot be read"} {
		h.Fault(fault)
		if err := compare(t.Context()); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("a VMM with the fault %s: %v", fault, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := compare(ctx); !errors.Is(err, context.Canceled) && banger.CodeOf(err) != banger.CodeCanceled {
		t.Errorf("nobody waits: %v", err)
	}
	if list := left(h); len(list) > 0 {
		t.Errorf("it leaves %q", list)
	}
	if n := len(h.Processes()); n > 0 {
		t.Errorf("%d processes are left", n)
	}
}

// TestWhatIsNotCompared is refused with a sentence.
func TestWhatIsNotCompared(t *testing.T) {
	h := hosttest.New(t)
	s, c := start(h)
	config, err := hosttest.FakeImage(t).ConfigFile()
	hosttest.Check(t, err)
	config.Config.Env = []string{"ANOTHER=image"}
	other, err := mutate.ConfigFile(hosttest.FakeImage(t), config)
	hosttest.Check(t, err)
	create(h, s, "box", h.Image)
	create(h, s, "foreign", hosttest.WriteLayout(t, h.Path("other"), v1.Image(other)))
	for _, tt := range []struct {
		what    banger.Comparison
		code    banger.Code
		message string
	}{
		{banger.Comparison{}, banger.CodeInvalid, "to is empty"},
		{banger.Comparison{To: "nonesuch"}, banger.CodeNotFound, `no VM and no snapshot called "nonesuch"`},
		{banger.Comparison{From: "nonesuch", To: "box"}, banger.CodeNotFound, "nonesuch"},
		{banger.Comparison{From: "foreign", To: "box"}, banger.CodeConflict,
			"VM foreign and VM box have different images, so they are not compared"},
	} {
		_, err := c.Compare(t.Context(), tt.what, banger.Discard)
		if banger.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.message) {
			t.Errorf("%+v: %v (%s)", tt.what, err, banger.CodeOf(err))
		}
	}
	if list := left(h); len(list) > 0 {
		t.Errorf("they leave %q", list)
	}
}

// TestAComparisonEndsWithItsDaemon: after Close nothing is compared, and what a daemon that died has left goes with the
// next one.
func TestAComparisonEndsWithItsDaemon(t *testing.T) {
	h := hosttest.New(t)
	s := h.Supervisor()
	create(h, s, "box", h.Image)
	id := banger.NewID()
	for _, dir := range []string{"state/helpers/vms/" + id, "run/helpers/vms/" + id} {
		hosttest.Check(t, os.MkdirAll(filepath.Join(h.Dir, dir), 0o700))
	}
	c := comparison.New(s.Templates().Plans(), s.Snapshots(), h.Options.ShimArgv, slog.New(slog.DiscardHandler))
	if list := left(h); len(list) > 0 {
		t.Errorf("a dead daemon leaves %q", list)
	}
	c.Close()
	_, err := c.Compare(t.Context(), banger.Comparison{To: "box"}, banger.Discard)
	if banger.CodeOf(err) != banger.CodeUnavailable {
		t.Errorf("after its end: %v", err)
	}
}
