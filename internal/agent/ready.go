package agent

import (
	"context"
	"net"
	"time"

	"banger"
	"banger/internal/agent/stream"
	"banger/internal/frame"
)

// untilGone returns a context that ends when the client of a stream goes away and, unless within is 0, after a time.
func untilGone(frames *frame.Reader, within time.Duration) (context.Context, func()) {
	var ctx context.Context
	var cancel context.CancelFunc
	if within > 0 {
		ctx, cancel = context.WithTimeout(context.Background(), within)
	} else {
		ctx, cancel = context.WithCancel(context.Background())
	}
	go func() { // ends with the stream
		frames.Next()
		cancel()
	}()
	return ctx, cancel
}

// ready answers when the guest's init obeys commands, unless the client goes away before.
func (s *server) ready(conn net.Conn, frames *frame.Reader) {
	ctx, cancel := untilGone(frames, 0)
	defer cancel()
	if err := s.system.Ready(ctx); err != nil {
		sendError(conn, err)
		return
	}
	frame.WriteJSON(conn, frame.Response, info())
}

// health answers what the ready probe of the guest has seen. Unless within is 0, it answers when that is a success. A
// guest without a probe is ready.
func (s *server) health(conn net.Conn, frames *frame.Reader, within time.Duration) {
	ctx, cancel := untilGone(frames, within)
	defer cancel()
	s.mu.Lock()
	watch := s.watch
	s.mu.Unlock()
	if watch == nil {
		frame.WriteJSON(conn, frame.Response, banger.Readiness{Ready: true})
		return
	}
	if within > 0 {
		if err := watch.Await(ctx, s.mainOver()); err != nil {
			sendError(conn, banger.Errorf(banger.CodeOf(err), "the VM is not ready: %w", err))
			return
		}
	}
	state, _ := watch.State()
	frame.WriteJSON(conn, frame.Response, state)
}

// mainOver returns a channel that is closed when the main command has ended. It is nil before the command has begun.
func (s *server) mainOver() <-chan struct{} {
	if p := s.mainProcess(); p != nil {
		return p.Done()
	}
	return nil
}

// watchReady tries the ready probe from the start of the main command to its end. In a guest without one, it begins
// when the init obeys commands.
func (s *server) watchReady(noMain bool) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if noMain {
		s.system.Ready(ctx)
	} else {
		<-s.mainUp
		go func() { // ends with the main command
			<-s.mainOver()
			cancel()
		}()
	}
	s.watch.Follow(ctx)
}

// tryCommand runs a command of the ready probe, as the main command runs.
func (s *server) tryCommand(ctx context.Context, args []string) (banger.Exit, string, error) {
	s.mu.Lock()
	e := s.mainExec
	s.mu.Unlock()
	e.Args, e.Main, e.TTY, e.Stdin = args, false, false, false
	return stream.Try(ctx, s.Start, e)
}
