package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"banger"
)

func (s *Server) listPorts(w http.ResponseWriter, req *http.Request) error {
	return writeList(w,
		func() ([]banger.Listener, error) { return s.Connections.Ports(req.Context(), req.PathValue("vm")) })
}

func (s *Server) addForward(w http.ResponseWriter, req *http.Request) error {
	f, err := decodeForward(req)
	if err == nil {
		f, err = s.Connections.AddForward(req.Context(), req.PathValue("vm"), f)
	}
	if err != nil {
		return err
	}
	return writeJSON(w, f)
}

func (s *Server) removeForward(w http.ResponseWriter, req *http.Request) error {
	f, err := decodeForward(req)
	if err == nil {
		err = s.Connections.RemoveForward(req.Context(), req.PathValue("vm"), f)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func decodeForward(req *http.Request) (f banger.Forward, err error) {
	if err := decode(req, &f); err != nil {
		return f, err
	}
	return f, f.Check()
}

func (s *Server) setPolicy(w http.ResponseWriter, req *http.Request) error {
	var p banger.Policy
	if err := decode(req, &p); err != nil {
		return err
	}
	vm, err := s.Connections.SetPolicy(req.Context(), req.PathValue("vm"), p)
	return answerVM(w, vm, err)
}

func (s *Server) denials(w http.ResponseWriter, req *http.Request) error {
	q := req.URL.Query()
	tail, err := tailOf(q)
	if err != nil {
		return err
	}
	if _, err := s.Inventory.Get(req.PathValue("vm")); err != nil {
		return err
	}
	w.Header().Set("Content-Type", ndjson)
	w.(http.Flusher).Flush() // a client that follows waits for data that may come late
	err = s.Connections.Denials(req.Context(), req.PathValue("vm"), tail, q.Get("follow") == "true", flushWriter{w})
	if err != nil && !errors.Is(err, context.Canceled) {
		s.Log.Warn("denials", "err", err) // the status has already been sent
	}
	return nil
}

// tailOf reads ?tail=N. It returns -1 if N is absent or "all".
func tailOf(q url.Values) (int, error) {
	text := q.Get("tail")
	if text == "" || text == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, banger.Errorf(banger.CodeInvalid, "tail is %q, but must be a number of lines", text)
	}
	return n, nil
}

// Ports returns the listening sockets of a running guest.
func (c *Client) Ports(ctx context.Context, ref string) (list []banger.Listener, err error) {
	return list, c.call(ctx, "GET", vmPath(ref, "ports"), nil, nil, &list)
}

// AddForward adds a forward and returns it with the port that was chosen.
func (c *Client) AddForward(ctx context.Context, ref string, f banger.Forward) (got banger.Forward, err error) {
	return got, c.call(ctx, "POST", vmPath(ref, "forwards"), nil, f, &got)
}

// RemoveForward ends a forward.
func (c *Client) RemoveForward(ctx context.Context, ref string, f banger.Forward) error {
	return c.call(ctx, "DELETE", vmPath(ref, "forwards"), nil, f, nil)
}

// SetPolicy replaces the policy of a VM.
func (c *Client) SetPolicy(ctx context.Context, ref string, p banger.Policy) (vm banger.VM, err error) {
	return vm, c.call(ctx, "PUT", vmPath(ref, "policy"), nil, p, &vm)
}

// Denials calls tell with the last tail denials of a VM's policy (all if tail is negative). With follow, it also
// calls tell with new ones until the VM or ctx ends.
func (c *Client) Denials(ctx context.Context, ref string, tail int, follow bool, tell func(banger.Denial)) error {
	q := url.Values{"follow": {strconv.FormatBool(follow)}}
	if tail >= 0 {
		q.Set("tail", strconv.Itoa(tail))
	}
	resp, err := c.send(ctx, "GET", vmPath(ref, "denials"), q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	d := json.NewDecoder(bufio.NewReader(resp.Body))
	for {
		var n banger.Denial
		switch err := d.Decode(&n); {
		case ctx.Err() != nil || errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return banger.Errorf(banger.CodeUnavailable, "the daemon went away: %w", err).WithHint("see: banger daemon status")
		}
		tell(n)
	}
}
