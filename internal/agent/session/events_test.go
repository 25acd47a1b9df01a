package session

import (
	"context"
	"testing"

	"banger"
	"banger/internal/testing/processtest"
)

// follower reads the changes of sessions behind a cursor, in the background, until the test ends.
func follower(t *testing.T, m *Manager, since string) <-chan banger.SessionChange {
	ctx, cancel := context.WithCancel(context.Background())
	changes, done := make(chan banger.SessionChange), make(chan struct{})
	go func() { // ends with ctx
		defer close(done)
		m.Events(ctx, since, func(c banger.SessionChange) error {
			select {
			case changes <- c:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return changes
}

// until returns the first change for which is holds.
func until(t *testing.T, changes <-chan banger.SessionChange, is func(banger.SessionChange) bool) banger.SessionChange {
	t.Helper()
	for {
		select {
		case c := <-changes:
			if is(c) {
				return c
			}
		case <-processtest.WithPatience(t).Done():
			t.Fatal("the change does not come")
		}
	}
}

func TestEventsTellWhatHappensToSessions(t *testing.T) {
	m := manager(t, t.TempDir())
	old := shell("old", "read line")
	_, err := m.Start(old)
	must(t, err)
	changes := follower(t, m, "")
	first := until(t, changes, func(banger.SessionChange) bool { return true })
	if !first.State || len(first.Sessions) != 1 || first.Sessions[0].Name != "old" {
		t.Errorf("the first change is not the whole state: %+v", first)
	}
	spec := shell("new", "read line; exit 3")
	spec.Ready = &banger.Probe{Check: "cmd:true"}
	_, err = m.Start(spec)
	must(t, err)
	about := func(name string, is func(banger.Session) bool) func(banger.SessionChange) bool {
		return func(c banger.SessionChange) bool { return c.Session != nil && c.Session.Name == name && is(*c.Session) }
	}
	runs := until(t, changes, about("new", func(s banger.Session) bool { return s.State == banger.SessionRunning }))
	until(t, changes, about("new", func(s banger.Session) bool { return s.Readiness.Ready }))
	must(t, m.Stop("new", 0))
	until(t, changes, about("new", func(s banger.Session) bool { return s.State == banger.SessionEnded }))
	must(t, m.Remove("new", false))
	until(t, changes, func(c banger.SessionChange) bool { return c.Removed == "new" })

	// A client that comes back goes on behind its cursor, and one with a cursor of another guest gets the whole state.
	back := until(t, follower(t, m, runs.Cursor), func(banger.SessionChange) bool { return true })
	if back.State || back.Removed != "new" {
		t.Errorf("behind the cursor %q there is %+v", runs.Cursor, back)
	}
	other := until(t, follower(t, m, "0123456789ab-7"), func(banger.SessionChange) bool { return true })
	if !other.State || len(other.Sessions) != 1 {
		t.Errorf("behind the cursor of another guest there is %+v", other)
	}
}

// TestEventsEndAtThePresent for a client that does not wait.
func TestEventsEndAtThePresent(t *testing.T) {
	m := manager(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	told := 0
	must(t, m.Events(ctx, "", func(banger.SessionChange) error { told++; return nil }))
	if told != 1 {
		t.Errorf("%d changes were told", told)
	}
}
