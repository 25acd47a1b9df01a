package api

import (
	"context"
	"net/http"
	"net/url"
	"regexp"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/text"
	"banger/internal/usage"
)

// changeParams are the parameters of a stream of changes.
var changeParams = []parameter{
	{"since", "the cursor of the last line that the client has got", "", false},
	{"follow", "false: end at the present state", false, false},
}

// placeOf reads ?since=&follow= of a stream of changes.
func placeOf(q url.Values) (since string, once bool, err error) {
	since = q.Get("since")
	return since, q.Get("follow") == "false", checkCursor(since)
}

func events(s *Server, w http.ResponseWriter, req *http.Request) error {
	since, once, err := placeOf(req.URL.Query())
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", ndjson)
	w.(http.Flusher).Flush() // a client that has come back sees that it is connected, although nothing happens
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	if once {
		cancel() // the watch then ends when it would have to wait
	}
	return s.Inventory.Watch(ctx, since, func(c banger.Change) error {
		if c.VM != nil {
			vm := hideEnv(*c.VM)
			c.VM = &vm
		}
		c.VMs = hidden(c.VMs)
		return text.WriteJSON(wire.FlushWriter{W: w}, c, "")
	})
}

// metrics answers with the history of what VMs use. A state is many lines, which leave together.
func metrics(s *Server, w http.ResponseWriter, req *http.Request) error {
	q := req.URL.Query()
	since, once, err := placeOf(q)
	if err != nil {
		return err
	}
	id := ""
	if ref := q.Get("vm"); ref != "" {
		vm, err := s.Inventory.Get(ref)
		if err != nil {
			return err
		}
		id = vm.ID
	}
	w.Header().Set("Content-Type", ndjson)
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	if once {
		cancel() // the stream then ends when it would have to wait
	}
	return s.Histories.Follow(ctx, id, q.Get("day") == "true", since, func(m usage.Metrics) error {
		if m.Cursor == "" {
			return text.WriteJSON(w, m, "")
		}
		return text.WriteJSON(wire.FlushWriter{W: w}, m, "")
	})
}

func sessionEvents(s *Server, w http.ResponseWriter, req *http.Request) error {
	since, once, err := placeOf(req.URL.Query())
	if err != nil {
		return err
	}
	begun := false
	tell := func(c banger.SessionChange) error {
		w.Header().Set("Content-Type", ndjson)
		begun = true
		return text.WriteJSON(wire.FlushWriter{W: w}, c, "")
	}
	err = s.SessionStreams.Events(req.Context(), req.PathValue("vm"), since, once, tell)
	if err == nil || !begun {
		return err
	}
	return tell(banger.SessionChange{Error: wire.NewError(err)})
}

// checkCursor returns an error if text cannot be the cursor of a change. "" is good: it is before all changes.
func checkCursor(text string) error {
	if text != "" && !cursorForm.MatchString(text) {
		return banger.Errorf(banger.CodeInvalid, "since is %.40q, which is not a cursor", text).
			WithHint("leave it out to begin with the whole state")
	}
	return nil
}

var cursorForm = regexp.MustCompile(`^[0-9a-f]{12}-[0-9]{1,20}$`)
