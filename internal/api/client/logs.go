package client

import (
	"context"
	"io"
	"net/url"
	"strconv"
	"time"

	"banger"
	"banger/internal/api/wire"
)

// Logs returns the console's output, which the caller must close. A negative tail means all lines.
func (c guestClient) Logs(ctx context.Context, ref string, tail int, follow bool) (io.ReadCloser, error) {
	q := logQuery(banger.LogView{Tail: tail, Follow: follow})
	resp, err := c.send(ctx, "GET", vmPath(ref, "logs"), q, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Output returns what v selects of the main command's output, which the caller must close. If apart is true, it is made
// of frames of frame.Stdout and frame.Stderr, and of frame.Stamp if v wants them. If not, it is the console's
// output, because only the console has the main command's.
//
// A daemon of an earlier banger, and a shim of one that v follows, send no stamps, and all times and positions.
func (c guestClient) Output(ctx context.Context, ref string, v banger.LogView) (r io.ReadCloser, apart bool,
	err error) {
	q := logQuery(v)
	q.Set("output", "true")
	resp, err := c.send(ctx, "GET", vmPath(ref, "logs"), q, nil)
	if err != nil {
		return nil, false, err
	}
	return resp.Body, resp.Header.Get("Content-Type") == wire.MediaFrames, nil
}

// logQuery returns the query for a view.
func logQuery(v banger.LogView) url.Values {
	q := url.Values{"follow": {strconv.FormatBool(v.Follow)}}
	if v.Tail >= 0 {
		q.Set("tail", strconv.Itoa(v.Tail))
	}
	for name, bound := range map[string]time.Time{"since": v.Since, "until": v.Until} {
		if !bound.IsZero() {
			q.Set(name, bound.UTC().Format(time.RFC3339Nano))
		}
	}
	if v.Position > 0 {
		q.Set("position", strconv.FormatUint(v.Position, 10))
	}
	if v.Stamps {
		q.Set("stamps", "true")
	}
	return q
}
