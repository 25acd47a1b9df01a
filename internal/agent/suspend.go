package agent

import (
	"context"
	"net"
	"sync"
	"time"

	"banger"
	"banger/internal/frame"
)

// tellTime is how long a client may take to read why its stream ends, and partTime is how long all clients together may
// take, with the ends of their copies.
const (
	tellTime = time.Second
	partTime = 2 * time.Second
)

// client is a stream that a suspend ends. Its handler calls leave.
type client struct {
	server *server
	cut    chan struct{} // closed when the stream must end
	gone   chan struct{} // closed when the stream has ended, or has nothing more to do for a suspend
	once   sync.Once
}

// errSuspended is the error for what begins while the VM is suspended.
func errSuspended() *banger.Error {
	return banger.Errorf(banger.CodeConflict, "nothing can start, because the VM is being suspended").
		WithHint("try again when banger ps shows that it is suspended or runs")
}

// suspended is the error that a client of a command gets.
func suspended(main bool) *banger.Error {
	if main {
		return banger.Errorf(banger.CodeConflict,
			"the VM was suspended: its main command goes on after banger resume, without its client")
	}
	return banger.Errorf(banger.CodeConflict, "the VM was suspended: the command was hung up").
		WithHint("run it again after banger resume")
}

// cutOff is the error that the client of a copy gets.
func cutOff() *banger.Error {
	return banger.Errorf(banger.CodeConflict, "the VM was suspended: the copy is not complete").
		WithHint("copy again after banger resume")
}

// enter registers a client, unless the VM is suspended.
func (s *server) enter() (*client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.admit(); err != nil {
		return nil, err
	}
	c := &client{server: s, cut: make(chan struct{}), gone: make(chan struct{})}
	s.clients[c] = true
	return c, nil
}

// leave says that a suspend need not wait for the client. It may be called again.
func (c *client) leave() {
	c.once.Do(func() {
		c.server.mu.Lock()
		delete(c.server.clients, c)
		c.server.mu.Unlock()
		close(c.gone)
	})
}

// whenCut calls do, in a goroutine, when the stream must end. The goroutine ends with leave.
func (c *client) whenCut(do func()) {
	go func() {
		select {
		case <-c.cut:
			do()
		case <-c.gone:
		}
	}()
}

// isCut reports whether the stream must end.
func (c *client) isCut() bool {
	select {
	case <-c.cut:
		return true
	default:
		return false
	}
}

// cuttable writes to a client until its stream must end. Each write is a whole frame.
type cuttable struct {
	conn   net.Conn
	client *client
}

func (c cuttable) Write(p []byte) (int, error) {
	if c.client.isCut() {
		return 0, cutOff()
	}
	return c.conn.Write(p)
}

// hold is a suspend that keeps the streams, because the VM goes on right after its snapshot.
type hold struct {
	over   chan struct{} // closed when the guest goes on
	forked bool          // it went on as another VM, whose clients are gone; set before over is closed
}

// admit returns when something new may begin, or an error. During a hold it waits for the end, and begins nothing in
// a fork, whose host has not asked for it. s.mu is held, but not while admit waits.
func (s *server) admit() error {
	for s.held != nil {
		h := s.held
		s.mu.Unlock()
		<-h.over
		s.mu.Lock()
		if h.forked {
			return errSuspended()
		}
	}
	if s.suspended {
		return errSuspended()
	}
	return nil
}

// endHold ends a hold, if there is one. s.mu is held.
func (s *server) endHold(forked bool) {
	if s.held == nil {
		return
	}
	s.held.forked = forked
	close(s.held.over)
	s.held = nil
	if forked {
		for c := range s.clients {
			close(c.cut)
			delete(s.clients, c)
		}
	}
}

// suspend prepares the guest for a snapshot, and answers. Unless the answer is sent, the guest goes on. With keep, the
// streams stay open.
func (s *server) suspend(conn net.Conn, frames *frame.Reader, keep bool) {
	ctx, cancel := untilGone(frames, 0)
	defer cancel()
	s.suspending.Lock()
	defer s.suspending.Unlock()
	fresh, err := s.prepareSuspend(ctx, keep)
	if err != nil {
		sendError(conn, err)
		return
	}
	conn.SetWriteDeadline(time.Now().Add(tellTime)) // a thaw waits for the end of this
	if frame.WriteJSON(conn, frame.Response, info()) != nil && fresh {
		s.goOn()
	}
}

// prepareSuspend does the work of suspend. fresh is false if the guest was suspended already. After an error, the guest
// goes on.
func (s *server) prepareSuspend(ctx context.Context, keep bool) (fresh bool, err error) {
	s.mu.Lock()
	switch {
	case s.stopping:
		err = banger.Errorf(banger.CodeConflict, "the VM is shutting down")
	case !s.configured:
		err = banger.Errorf(banger.CodeConflict, "the VM is still starting")
	}
	if err != nil || s.suspended {
		s.mu.Unlock()
		return false, err
	}
	s.suspended = true
	var parting []*client
	if keep {
		s.held = &hold{over: make(chan struct{})}
	} else {
		for c := range s.clients {
			close(c.cut)
			delete(s.clients, c)
			parting = append(parting, c)
		}
	}
	s.mu.Unlock()
	awaitGone(ctx, parting)
	if err = s.system.Freeze(ctx); err == nil {
		err = s.stillWanted(ctx)
	}
	if err != nil {
		s.goOn()
		return false, banger.Errorf(banger.CodeOf(err), "the VM was not suspended, and goes on: %w", err)
	}
	return true, nil
}

// awaitGone returns when all clients are gone, or are too slow.
func awaitGone(ctx context.Context, parting []*client) {
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	for _, c := range parting {
		select {
		case <-c.gone:
		case <-ctx.Done():
			return
		}
	}
}

// stillWanted returns an error if the host has given up, or if the guest ends now. A shutdown thaws only after it has
// set stopping.
func (s *server) stillWanted(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return banger.Errorf(banger.CodeConflict, "the VM is shutting down")
	}
	if ctx.Err() != nil {
		return banger.Errorf(banger.CodeCanceled, "the host waits no longer")
	}
	return nil
}

// thaw ends a suspend without a new identity.
func (s *server) thaw() {
	s.suspending.Lock()
	defer s.suspending.Unlock()
	s.goOn()
}

// goOn lets everything go on.
func (s *server) goOn() {
	s.system.Thaw()
	s.mu.Lock()
	s.suspended = false
	s.endHold(false)
	s.mu.Unlock()
}
