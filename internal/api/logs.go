package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"banger"
	"banger/internal/api/wire"
)

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
		w.Header().Set("Content-Type", wire.MediaFrames)
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
