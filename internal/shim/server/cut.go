package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"time"

	"banger/internal/vmm"
)

// cutTime is the maximum time until a template is complete, also one whose init has booted.
const cutTime = 5 * time.Minute

// errNotWaiting means that no template can be cut.
var errNotWaiting = errors.New("the guest has not come to the place where templates are cut")

// cut writes the VM to its directory when its guest waits for its host, and ends it. Nothing of the host has reached
// the guest by then.
func (s *server) cut(ctx context.Context, ln net.Listener) error {
	defer ln.Close()
	ctx, cancel := context.WithTimeout(ctx, cutTime)
	defer cancel()
	err := s.awaitWaiting(ctx)
	if err == nil {
		err = s.proc.Pause(ctx)
	}
	taker, ok := s.proc.(vmm.Snapshotter)
	if err == nil && !ok {
		err = errors.New("its VMM cannot write a VM down")
	}
	if err == nil {
		err = taker.Snapshot(ctx, ".")
	}
	s.proc.Kill()
	<-s.proc.Done()
	s.closeNetwork()
	s.console.close()
	return err
}

// awaitWaiting returns when the agent says on the console that it waits.
func (s *server) awaitWaiting(ctx context.Context) error {
	select {
	case <-s.waits.seen:
		return nil
	case <-s.proc.Done():
	case <-ctx.Done():
	}
	return errNotWaiting
}

// output returns where the VMM writes the guest's output. Of a template, the watcher gets it too: the log of a full
// disk says nothing.
func (s *server) output() io.Writer {
	if s.waits == nil {
		return s.console
	}
	return io.MultiWriter(s.console, s.waits)
}

// watcher closes seen when want was written to it.
type watcher struct {
	want []byte
	seen chan struct{}
	last []byte // the end of what was written before; nil when want was seen
}

func newWatcher(want string) *watcher {
	return &watcher{want: []byte(want), seen: make(chan struct{}), last: []byte{}}
}

func (w *watcher) Write(p []byte) (int, error) {
	if w.last == nil {
		return len(p), nil
	}
	w.last = append(w.last, p...)
	if bytes.Contains(w.last, w.want) {
		close(w.seen)
		w.last = nil
		return len(p), nil
	}
	w.last = append([]byte{}, w.last[max(0, len(w.last)-len(w.want)):]...)
	return len(p), nil
}
