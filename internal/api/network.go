package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"banger"
	"banger/internal/api/wire"
)

func listPorts(s *Server, w http.ResponseWriter, req *http.Request) error {
	probe := req.URL.Query().Get("probe") == "true"
	return wire.WriteList(w,
		func() ([]banger.Listener, error) {
			return s.Connections.Ports(req.Context(), req.PathValue("vm"), probe)
		})
}

func addForward(s *Server, w http.ResponseWriter, req *http.Request) error {
	f, err := decodeForward(req)
	if err == nil {
		f, err = s.Connections.AddForward(req.Context(), req.PathValue("vm"), f)
	}
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, f)
}

func removeForward(s *Server, w http.ResponseWriter, req *http.Request) error {
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
	if err := wire.Decode(req, &f); err != nil {
		return f, err
	}
	return f, f.Check()
}

func setPolicy(s *Server, w http.ResponseWriter, req *http.Request) error {
	var p banger.Policy
	if err := wire.Decode(req, &p); err != nil {
		return err
	}
	vm, err := s.Connections.SetPolicy(req.Context(), req.PathValue("vm"), p)
	return answerVM(w, vm, err)
}

func denials(s *Server, w http.ResponseWriter, req *http.Request) error {
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
	out := wire.FlushWriter{W: w}
	err = s.Connections.Denials(req.Context(), req.PathValue("vm"), tail, q.Get("follow") == "true", out)
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

// Ports returns the listening sockets of a running guest. With probe, each gets a request, and the URL of those that
// speak HTTP is set.
func (c networkClient) Ports(ctx context.Context, ref string, probe bool) (list []banger.Listener, err error) {
	q := url.Values{"probe": {strconv.FormatBool(probe)}}
	return list, c.call(ctx, "GET", vmPath(ref, "ports"), q, nil, &list)
}

// AddForward adds a forward and returns it with the port that was chosen.
func (c networkClient) AddForward(ctx context.Context, ref string, f banger.Forward) (got banger.Forward, err error) {
	return got, c.call(ctx, "POST", vmPath(ref, "forwards"), nil, f, &got)
}

// RemoveForward ends a forward.
func (c networkClient) RemoveForward(ctx context.Context, ref string, f banger.Forward) error {
	return c.call(ctx, "DELETE", vmPath(ref, "forwards"), nil, f, nil)
}

// SetPolicy replaces the policy of a VM.
func (c networkClient) SetPolicy(ctx context.Context, ref string, p banger.Policy) (vm banger.VM, err error) {
	return vm, c.call(ctx, "PUT", vmPath(ref, "policy"), nil, p, &vm)
}

// Denials calls tell with the last tail denials of a VM's policy (all if tail is negative). With follow, it also
// calls tell with new ones until the VM or ctx ends.
func (c networkClient) Denials(ctx context.Context, ref string, tail int, follow bool, tell func(banger.Denial)) error {
	q := url.Values{"follow": {strconv.FormatBool(follow)}}
	if tail >= 0 {
		q.Set("tail", strconv.Itoa(tail))
	}
	resp, err := c.send(ctx, "GET", vmPath(ref, "denials"), q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return wire.ReadLines(ctx, json.NewDecoder(bufio.NewReader(resp.Body)), tell)
}

// connectRequest is the body of PUT /v1/vms/{vm}/network.
type connectRequest struct {
	Network string `json:"network"`
}

func listNetworks(s *Server, w http.ResponseWriter, req *http.Request) error {
	return wire.WriteList(w, func() ([]banger.Network, error) { return s.Networks.Networks(req.Context()) })
}

func createNetwork(s *Server, w http.ResponseWriter, req *http.Request) error {
	var n banger.Network
	if err := wire.Decode(req, &n); err != nil {
		return err
	}
	n, err := s.Networks.CreateNetwork(req.Context(), n)
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, n)
}

func getNetwork(s *Server, w http.ResponseWriter, req *http.Request) error {
	n, err := s.Networks.Network(req.Context(), req.PathValue("network"))
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, n)
}

func removeNetwork(s *Server, w http.ResponseWriter, req *http.Request) error {
	if err := s.Networks.RemoveNetwork(req.Context(), req.PathValue("network")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func connectNetwork(s *Server, w http.ResponseWriter, req *http.Request) error {
	var c connectRequest
	if err := wire.Decode(req, &c); err != nil {
		return err
	}
	vm, err := s.Connections.ConnectNetwork(req.Context(), req.PathValue("vm"), c.Network)
	return answerVM(w, vm, err)
}

// Networks returns all bridge networks.
func (c networkClient) Networks(ctx context.Context) (list []banger.Network, err error) {
	return list, c.call(ctx, "GET", "/v1/networks", nil, nil, &list)
}

// CreateNetwork makes a network. If subnet is empty, the daemon chooses one.
func (c networkClient) CreateNetwork(ctx context.Context, name, subnet string) (n banger.Network, err error) {
	return n, c.call(ctx, "POST", "/v1/networks", nil, banger.Network{Name: name, Subnet: subnet}, &n)
}

// Network returns one network.
func (c networkClient) Network(ctx context.Context, name string) (n banger.Network, err error) {
	return n, c.call(ctx, "GET", "/v1/networks/"+url.PathEscape(name), nil, nil, &n)
}

// RemoveNetwork deletes a network that no VM uses.
func (c networkClient) RemoveNetwork(ctx context.Context, name string) error {
	return c.call(ctx, "DELETE", "/v1/networks/"+url.PathEscape(name), nil, nil, nil)
}

// ConnectNetwork gives a VM at rest another network.
func (c networkClient) ConnectNetwork(ctx context.Context, ref, network string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "PUT", vmPath(ref, "network"), nil, connectRequest{network}, &vm)
}
