package supervisor_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"banger"
)

// replay is what a client of the event stream knows: it applies changes as they come.
type replay struct {
	vms    map[string]banger.VM
	cursor string
	states int // how often it got the whole state
}

func (r *replay) apply(c banger.Change) error {
	if c.State {
		r.vms = map[string]banger.VM{}
		r.states++
	}
	for _, vm := range c.VMs {
		r.vms[vm.ID] = vm
	}
	if c.VM != nil {
		r.vms[c.VM.ID] = *c.VM
	}
	delete(r.vms, c.Removed)
	r.cursor = c.Cursor
	return nil
}

// want fails the test unless the client knows exactly the states of VMs, by name, after it has read what there is.
func (r *replay) want(t *testing.T, watch func(context.Context, string, func(banger.Change) error) error,
	states map[string]banger.State) {
	t.Helper()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := watch(ended, r.cursor, r.apply); err != nil {
		t.Fatal(err)
	}
	got := map[string]banger.State{}
	for _, vm := range r.vms {
		got[vm.Name] = vm.State
	}
	if len(got) != len(states) {
		t.Errorf("the client knows %v, not %v", got, states)
	}
	for name, state := range states {
		if got[name] != state {
			t.Errorf("the client knows %s as %q, not %q", name, got[name], state)
		}
	}
}

// TestAClientFollowsWhatHappens goes on with a cursor after each step, also with that of an earlier daemon.
func TestAClientFollowsWhatHappens(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	var c replay
	c.want(t, s.Watch, map[string]banger.State{})
	_, err := s.Create(h.ctx(), h.spec("box"), nil, false, banger.Discard)
	check(t, err)
	c.want(t, s.Watch, map[string]banger.State{"box": banger.StateCreated})
	_, err = s.Start(h.ctx(), "box", false, false, banger.Discard)
	check(t, err)
	_, err = s.Rename(h.ctx(), "box", "crate")
	check(t, err)
	c.want(t, s.Watch, map[string]banger.State{"crate": banger.StateRunning})
	if c.states != 1 {
		t.Errorf("the client got the whole state %d times, not once", c.states)
	}
	s.Close()
	s = h.daemon()
	c.want(t, s.Watch, map[string]banger.State{"crate": banger.StateRunning})
	if c.states != 2 {
		t.Errorf("after another daemon the client got the whole state %d times, not twice", c.states)
	}
	check(t, s.Remove(h.ctx(), "crate", true))
	c.want(t, s.Watch, map[string]banger.State{})
}

// TestAWaitingClientHearsAtOnce lets a client wait for a change, and end.
func TestAWaitingClientHearsAtOnce(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	changes, done := make(chan banger.Change), make(chan error, 1)
	ctx, cancel := context.WithCancel(h.ctx())
	go func() {
		done <- s.Watch(ctx, "", func(c banger.Change) error {
			select {
			case changes <- c:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	if c := <-changes; !c.State {
		t.Errorf("the first change is %+v", c)
	}
	_, err := s.Create(h.ctx(), h.spec("box"), nil, false, banger.Discard)
	check(t, err)
	select {
	case c := <-changes:
		if c.VM == nil || c.VM.Name != "box" {
			t.Errorf("the next change is %+v", c)
		}
	case <-time.After(10 * time.Second):
		t.Error("no change comes")
	}
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("a client that leaves causes %v", err)
	}
}
