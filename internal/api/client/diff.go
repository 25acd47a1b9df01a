package client

import (
	"context"

	"banger"
)

// Compare calls show for each file that differs, in the order of the paths. emit gets the progress.
func (c snapshotClient) Compare(ctx context.Context, what banger.Comparison, emit banger.Emit,
	show func(banger.FileChange)) (done banger.Compared, err error) {
	if err := what.Check(); err != nil {
		return done, err
	}
	e, err := c.stream(ctx, "/v1/diffs", nil, what, func(e banger.Event) {
		if e.File != nil {
			show(*e.File)
		} else {
			emit(e)
		}
	})
	if e.Compared != nil {
		done = *e.Compared
	}
	return done, err
}
