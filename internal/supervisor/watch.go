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
	state := func() banger.Change {
		return banger.Change{State: true, VMs: s.List(func(banger.VM) bool { return true })}
	}
	return s.changes.Follow(ctx, s.ctx.Done(), since, state, func(c banger.Change, cursor string) error {
		c.Cursor = cursor
		return emit(c)
	})
}
