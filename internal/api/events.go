package api

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strconv"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/text"
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

// placeQuery returns the query that placeOf reads.
func placeQuery(since string, follow bool) url.Values {
	q := url.Values{"follow": {strconv.FormatBool(follow)}}
	if since != "" {
		q.Set("since", since)
	}
	return q
}

func events(s *Server, w http.ResponseWriter, req *http.Request) error {
	since, once, err := placeOf(req.URL.Query())
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", ndjson)
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

// Events calls tell with what happens to VMs behind the cursor since, until ctx ends. Without since, the first change
// has the whole state. With follow unset it ends at the present state. After an error, a client goes on with the cursor
// of the last change that it has got.
func (c vmClient) Events(ctx context.Context, since string, follow bool, tell func(banger.Change)) error {
	return readChanges(ctx, c.transport, "/v1/events", placeQuery(since, follow), tell)
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
