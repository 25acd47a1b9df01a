package api

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/text"
)

func events(s *Server, w http.ResponseWriter, req *http.Request) error {
	q := req.URL.Query()
	since := q.Get("since")
	if err := banger.CheckCursor(since); err != nil {
		return err
	}
	w.Header().Set("Content-Type", ndjson)
	ctx := req.Context()
	if q.Get("follow") == "false" {
		ended, cancel := context.WithCancel(ctx)
		cancel() // the watch then ends when it would have to wait
		ctx = ended
	}
	return s.Inventory.Watch(ctx, since, func(c banger.Change) error {
		if c.VM != nil {
			vm := hideEnv(*c.VM)
			c.VM = &vm
		}
		c.VMs = hidden(c.VMs)
		if err := text.WriteJSON(w, c, ""); err != nil {
			return err
		}
		w.(http.Flusher).Flush()
		return nil
	})
}

// Events calls tell with what happens to VMs behind the cursor since, until ctx ends. Without since, the first change
// has the whole state. With follow unset it ends at the present state. After an error, a client goes on with the cursor
// of the last change that it has got.
func (c vmClient) Events(ctx context.Context, since string, follow bool, tell func(banger.Change)) error {
	q := url.Values{"follow": {strconv.FormatBool(follow)}}
	if since != "" {
		q.Set("since", since)
	}
	resp, err := c.send(ctx, "GET", "/v1/events", q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return wire.ReadLines(ctx, json.NewDecoder(bufio.NewReader(resp.Body)), tell)
}
