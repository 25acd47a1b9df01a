package client

import (
	"bufio"
	"context"
	"encoding/json"
	"net/url"
	"strconv"

	"banger"
	"banger/internal/api/wire"
)

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

// AllowOnce lets an allowing rule count in front of the policy of a running VM for so many seconds.
func (c networkClient) AllowOnce(ctx context.Context, ref string, r banger.Rule, seconds int) error {
	return c.call(ctx, "POST", vmPath(ref, "policy/once"), nil, wire.OnceRequest{Rule: r, Seconds: &seconds}, nil)
}

// Denials calls tell with the last tail refusals of a VM's policy (all if tail is negative). With follow, it also
// calls tell with new ones until the VM or ctx ends.
func (c networkClient) Denials(ctx context.Context, ref string, tail int, follow bool,
	tell func(banger.Decision)) error {
	return c.decided(ctx, vmPath(ref, "denials"), tail, follow, tell)
}

// Decisions is like Denials, but also has the flows that the policy has allowed.
func (c networkClient) Decisions(ctx context.Context, ref string, tail int, follow bool,
	tell func(banger.Decision)) error {
	return c.decided(ctx, vmPath(ref, "decisions"), tail, follow, tell)
}

func (c networkClient) decided(ctx context.Context, path string, tail int, follow bool,
	tell func(banger.Decision)) error {
	q := url.Values{"follow": {strconv.FormatBool(follow)}}
	if tail >= 0 {
		q.Set("tail", strconv.Itoa(tail))
	}
	resp, err := c.send(ctx, "GET", path, q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return wire.ReadLines(ctx, json.NewDecoder(bufio.NewReader(resp.Body)), tell)
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
	return vm, c.call(ctx, "PUT", vmPath(ref, "network"), nil, map[string]string{"network": network}, &vm)
}
