package session

import (
	"context"

	"banger"
)

// changed wakes the clients of Events, which then describe the session anew.
func (s *session) changed() { s.m.events().Publish(s.info.Name) }

// Events calls emit with what happens to sessions behind the cursor since, as feed.Follow describes, until ctx ends. A
// session that changes often is described as it is when emit is called, so several changes in a row may look alike.
func (m *Manager) Events(ctx context.Context, since string, emit func(banger.SessionChange) error) error {
	everything := func() string { return "" }
	return m.events().Follow(ctx, nil, since, everything, func(name, cursor string) error {
		c := banger.SessionChange{Cursor: cursor}
		if name == "" {
			c.State, c.Sessions = true, m.List()
		} else if s, err := m.Get(name); err == nil {
			c.Session = &s
		} else {
			c.Removed = name
		}
		return emit(c)
	})
}
