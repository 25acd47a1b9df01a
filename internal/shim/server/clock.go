package server

import (
	"context"
	"time"

	"banger/internal/shim"

	"banger"
)

// clockEvery is the interval between comparisons of the guest's clock with the host's.
const clockEvery = time.Minute

// keepClock keeps the guest's clock equal to the host's until the VM ends: it compares them each minute, and at once
// after the VM was resumed. A guest that does not answer costs one call each time. If the agent is too old for this,
// keepClock returns.
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
		if err := s.syncClock(ctx, now); unknownOperation(err) {
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

// resume resumes the VM, whose clock has stood still.
func (s *server) resume(ctx context.Context) error {
	if err := s.proc.Resume(ctx); err != nil {
		return err
	}
	select {
	case s.resumed <- struct{}{}:
	default: // setting the clock is already pending
	}
	return nil
}

// unknownOperation reports whether an agent does not know an operation. An agent from before the range of versions
// calls it invalid.
func unknownOperation(err error) bool {
	code := banger.CodeOf(err)
	return code == banger.CodeVersion || code == banger.CodeInvalid
}
