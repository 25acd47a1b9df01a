package shim

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"banger/internal/testing/processtest"

	"banger"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestAShimThatDoesNotAnswerIsReported makes each call to a shim that accepts the connection and sends nothing.
func TestAShimThatDoesNotAnswerIsReported(t *testing.T) {
	processtest.Long(t)
	c := Client{Run: t.TempDir()}
	// The kernel accepts connections in the same way for a stopped shim.
	ln, err := net.Listen("unix", filepath.Join(c.Run, SocketFile))
	check(t, err)
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*answerTime)
	defer cancel()
	var wg sync.WaitGroup
	for name, f := range map[string]func() error{
		"status":    func() error { _, err := c.Status(ctx); return err },
		"stats":     func() error { _, err := c.Stats(ctx); return err },
		"ports":     func() error { _, err := c.Ports(ctx, false); return err },
		"pause":     func() error { return c.Pause(ctx) },
		"resume":    func() error { return c.Resume(ctx) },
		"policy":    func() error { return c.SetPolicy(ctx, banger.Policy{}) },
		"decisions": func() error { return c.Decisions(ctx, true, 1, false, io.Discard) },
		"console":   func() error { return c.FollowConsole(ctx, 1, io.Discard) },
	} {
		wg.Go(func() {
			if err := f(); err == nil || !strings.Contains(err.Error(), "shim does not answer") {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
}
