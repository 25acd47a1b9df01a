package api

import (
	"context"
	"net/http"
	"net/url"

	"banger"
)

// connectRequest is the body of PUT /v1/vms/{vm}/network.
type connectRequest struct {
	Network string `json:"network"`
}

func (s *Server) listNetworks(w http.ResponseWriter, req *http.Request) error {
	return writeList(w, func() ([]banger.Network, error) { return s.Networks.Networks(req.Context()) })
}

func (s *Server) createNetwork(w http.ResponseWriter, req *http.Request) error {
	var n banger.Network
	if err := decode(req, &n); err != nil {
		return err
	}
	n, err := s.Networks.CreateNetwork(req.Context(), n)
	if err != nil {
		return err
	}
	return writeJSON(w, n)
}

func (s *Server) getNetwork(w http.ResponseWriter, req *http.Request) error {
	n, err := s.Networks.Network(req.Context(), req.PathValue("network"))
	if err != nil {
		return err
	}
	return writeJSON(w, n)
}

func (s *Server) removeNetwork(w http.ResponseWriter, req *http.Request) error {
	if err := s.Networks.RemoveNetwork(req.Context(), req.PathValue("network")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) connectNetwork(w http.ResponseWriter, req *http.Request) error {
	var c connectRequest
	if err := decode(req, &c); err != nil {
		return err
	}
	vm, err := s.Connections.ConnectNetwork(req.Context(), req.PathValue("vm"), c.Network)
	return answerVM(w, vm, err)
}

// Networks returns all bridge networks.
func (c *Client) Networks(ctx context.Context) (list []banger.Network, err error) {
	return list, c.call(ctx, "GET", "/v1/networks", nil, nil, &list)
}

// CreateNetwork makes a network. If subnet is empty, the daemon chooses one.
func (c *Client) CreateNetwork(ctx context.Context, name, subnet string) (n banger.Network, err error) {
	return n, c.call(ctx, "POST", "/v1/networks", nil, banger.Network{Name: name, Subnet: subnet}, &n)
}

// Network returns one network.
func (c *Client) Network(ctx context.Context, name string) (n banger.Network, err error) {
	return n, c.call(ctx, "GET", "/v1/networks/"+url.PathEscape(name), nil, nil, &n)
}

// RemoveNetwork deletes a network that no VM uses.
func (c *Client) RemoveNetwork(ctx context.Context, name string) error {
	return c.call(ctx, "DELETE", "/v1/networks/"+url.PathEscape(name), nil, nil, nil)
}

// ConnectNetwork gives a VM at rest another network.
func (c *Client) ConnectNetwork(ctx context.Context, ref, network string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "PUT", vmPath(ref, "network"), nil, connectRequest{network}, &vm)
}
