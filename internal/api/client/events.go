package client

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"net/url"
	"strconv"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/usage"
)

// placeQuery returns the query for the changes behind a cursor.
func placeQuery(since string, follow bool) url.Values {
	q := url.Values{"follow": {strconv.FormatBool(follow)}}
	if since != "" {
		q.Set("since", since)
	}
	return q
}

// Events calls tell with what happens to VMs behind the cursor since, until ctx ends. Without since, the first change
// has the whole state. With follow unset it ends at the present state. After an error, a client goes on with the cursor
// of the last change that it has got.
func (c vmClient) Events(ctx context.Context, since string, follow bool, tell func(banger.Change)) error {
	return readChanges(ctx, c.transport, "/v1/events", placeQuery(since, follow), tell)
}

// Metrics calls tell with the lines of the history of what VMs use, behind the cursor since, until ctx ends. With
// follow unset it ends at the present state. vm limits it to one VM, and day adds the last 24 hours.
func (c vmClient) Metrics(ctx context.Context, vm string, day bool, since string, follow bool,
	tell func(usage.Metrics)) error {
	q := placeQuery(since, follow)
	q.Set("day", strconv.FormatBool(day))
	if vm != "" {
		q.Set("vm", vm)
	}
	return readChanges(ctx, c.transport, "/v1/metrics", q, tell)
}

// SessionEvents is like Events for the sessions of a VM. It returns an error when the VM is suspended or ends.
func (c sessionClient) SessionEvents(ctx context.Context, vm, since string, follow bool,
	tell func(banger.SessionChange)) error {
	var failed error
	err := readChanges(ctx, c.transport, vmPath(vm, "session-events"), placeQuery(since, follow),
		func(change banger.SessionChange) {
			if change.Error != nil {
				failed = change.Error
				return
			}
			tell(change)
		})
	return cmp.Or(failed, err)
}

// readChanges calls tell with each line of a stream of changes.
func readChanges[T any](ctx context.Context, c *transport, path string, q url.Values, tell func(T)) error {
	resp, err := c.send(ctx, "GET", path, q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return wire.ReadLines(ctx, json.NewDecoder(bufio.NewReader(resp.Body)), tell)
}
