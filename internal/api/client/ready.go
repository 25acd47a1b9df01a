package client

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"banger"
)

func withinQuery(within time.Duration) url.Values {
	return url.Values{"within": {strconv.Itoa(max(int(within/time.Second), 1))}}
}

// Ready returns when a VM is ready, or an error after a time of whole seconds.
func (c guestClient) Ready(ctx context.Context, ref string, within time.Duration) (r banger.Readiness, err error) {
	return r, c.call(ctx, "GET", vmPath(ref, "ready"), withinQuery(within), nil, &r)
}
