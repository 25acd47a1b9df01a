package supervisor

import (
	"context"

	"banger"
)

// keptChanges is how many changes of VMs are kept for clients that come back.
const keptChanges = 1024

// Watch calls emit with what happens to VMs behind the cursor since. If since is empty, or changes behind it are no
// longer kept, the first change has the whole state. Watch returns nil when ctx or the supervisor ends, and the error
// of emit. If ctx has ended before, Watch still emits what has happened up to now.
func (s *Supervisor) Watch(ctx context.Context, since string, emit func(banger.Change) error) error {
	for {
		changes, cursors, fresh, ok := s.changes.After(since)
		if !ok {
			since = s.changes.Now() // before the list, so that no change is missed
			state := banger.Change{Cursor: since, State: true, VMs: s.List(func(banger.VM) bool { return true })}
			if err := emit(state); err != nil {
				return err
			}
			continue
		}
		for i, c := range changes {
			c.Cursor = cursors[i]
			if err := emit(c); err != nil {
				return err
			}
			since = c.Cursor
		}
		if len(changes) > 0 {
			continue
		}
		select {
		case <-fresh:
		case <-ctx.Done():
			return nil
		case <-s.ctx.Done():
			return nil
		}
	}
}
