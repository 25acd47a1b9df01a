package server

import (
	"bytes"
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"banger/internal/guest"
	"banger/internal/vmm"
)

// cutTime is the maximum time until a template is complete, also one whose init has booted.
const cutTime = 5 * time.Minute

// errNotWaiting means that no template can be cut.
var errNotWaiting = errors.New("the guest has not come to the place where templates are cut")

// makeWay gives this process, and the VMM to come, the least of the CPU: nobody waits for a template.
func makeWay() {
	syscall.Setpriority(syscall.PRIO_PGRP, 0, 19) // without effect, the making is only faster
}

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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &watcher{want: []byte(guest.Waiting), found: cancel}
	s.console.follow(ctx, s.proc.Done(), -1, w)
	if !w.seen {
		return errNotWaiting
	}
	return nil
}

// watcher calls found when want was written.
type watcher struct {
	want  []byte
	found func()
	last  []byte // the end of what was written before
	seen  bool
}

func (w *watcher) Write(p []byte) (int, error) {
	w.last = append(w.last, p...)
	if !w.seen && bytes.Contains(w.last, w.want) {
		w.seen = true
		w.found()
	}
	w.last = w.last[max(0, len(w.last)-len(w.want)):]
	return len(p), nil
}
