package server

import (
	"context"
	"time"

	"banger/internal/shim"

	"banger"
)

// clockEvery is how often the guest's clock is compared with the host's.
const clockEvery = time.Minute

// keepClock keeps the guest's clock at the host's until the VM ends: each minute, and at once when the VM was
// resumed. A guest that does not answer costs one call each time. An agent that is too old for that is left alone.
func (s *server) keepClock(ctx context.Context, tick <-chan time.Time) {
	for {
		now := false
		select {
		case <-tick:
		case <-s.resumed:
			now = true
		case <-ctx.Done():
			return
		}
		if err := s.syncClock(ctx, now); banger.CodeOf(err) == banger.CodeInvalid {
			return
		}
	}
}

func (s *server) syncClock(ctx context.Context, now bool) error {
	ctx, cancel := context.WithTimeout(ctx, shim.CallTime)
	defer cancel()
	_, err := s.agent().SyncClock(ctx, now)
	return err
}

// resume lets the VM go on, whose clock stood still.
func (s *server) resume(ctx context.Context) error {
	if err := s.proc.Resume(ctx); err != nil {
		return err
	}
	select {
	case s.resumed <- struct{}{}:
	default: // it is to be set already
	}
	return nil
}
