package view

import (
	"context"

	"banger"
	"banger/internal/feed"
)

// Kept is how many changes of VMs are kept for clients that come back.
const Kept = 1024

// Follow calls emit with what happens to VMs behind the cursor since, until ctx or done ends. If since is empty, or
// changes behind it are no longer kept, the first change has the whole state, the VMs that list returns. Follow returns
// the error of emit. If ctx has ended before, Follow still emits what has happened up to now.
func Follow(ctx context.Context, f *feed.Feed[banger.Change], done <-chan struct{}, since string,
	list func(keep func(banger.VM) bool) []banger.VM, emit func(banger.Change) error) error {
	state := func() banger.Change {
		return banger.Change{State: true, VMs: list(func(banger.VM) bool { return true })}
	}
	return f.Follow(ctx, done, since, state, func(c banger.Change, cursor string) error {
		c.Cursor = cursor
		return emit(c)
	})
}
