package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"banger"
	"banger/internal/api/wire"
)

// mediaFrames is the type of an answer that is made of the frames of package frame.
const mediaFrames = "application/vnd.banger.frames"

// logs answers with the console, or with frames of the main command's output for a client that asks for them.
func logs(s *Server, w http.ResponseWriter, req *http.Request) error {
	q := req.URL.Query()
	view, err := viewOf(q, q.Get("output") == "true")
	if err != nil {
		return err
	}
	vm, out := req.PathValue("vm"), wire.FlushWriter{W: w}
	if _, err := s.Inventory.Get(vm); err != nil {
		return err
	}
	apart := false
	if q.Get("output") == "true" {
		w.Header().Set("Content-Type", mediaFrames)
		apart, err = s.Guests.Output(req.Context(), vm, view, out)
	}
	if !apart && err == nil {
		if view.Bounded() {
			return banger.Errorf(banger.CodeInvalid, "the output of VM %s is on its console, which has no times and no "+
				"positions", vm).WithHint("leave out since, until and position")
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		err = s.Guests.Logs(req.Context(), vm, view.Tail, view.Follow, out)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		s.Log.Warn("logs", "err", err) // the status has already been sent
	}
	return nil
}

// viewOf reads ?tail=&follow=&since=&until=&position=&stamps=. stamped says that the output has times and positions.
func viewOf(q url.Values, stamped bool) (v banger.LogView, err error) {
	if v.Tail, err = tailOf(q); err != nil {
		return v, err
	}
	v.Follow, v.Stamps = q.Get("follow") == "true", q.Get("stamps") == "true"
	for name, bound := range map[string]*time.Time{"since": &v.Since, "until": &v.Until} {
		if text := q.Get(name); text != "" {
			if *bound, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return v, banger.Errorf(banger.CodeInvalid, "%s is %.100q, but must be a time of RFC 3339, such as "+
					"2026-11-29T18:30:00.5Z", name, text)
			}
		}
	}
	if v.Position, err = positionOf(q); err != nil {
		return v, err
	}
	if !stamped && (v.Bounded() || v.Stamps) {
		return v, banger.Errorf(banger.CodeInvalid, "the console has no times and no positions").
			WithHint("add output=true, or leave out since, until, position and stamps")
	}
	return v, v.Check()
}

// positionOf returns the position of a query, or 0.
func positionOf(q url.Values) (uint64, error) {
	text := q.Get("position")
	if text == "" {
		return 0, nil
	}
	at, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, banger.Errorf(banger.CodeInvalid, "position is %.100q, but must be a number of bytes", text)
	}
	return at, nil
}

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
	return resp.Body, resp.Header.Get("Content-Type") == mediaFrames, nil
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
