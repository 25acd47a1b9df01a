// Package client is the client's end of the HTTP API: a method for each call of the daemon. It uses the nouns of
// package banger. It must not know the server that answers, nor what is done with an answer.
package client

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"banger"
	"banger/internal/api/wire"
)

// Client calls the API over the daemon's unix socket. Its methods return the daemon's own *Error, or CodeUnavailable
// when no daemon answers. They send the banger.RegistryAccess of their context.
type Client struct {
	*transport
	vmClient
	guestClient
	sessionClient
	networkClient
	imageClient
	kernelClient
	templateClient
	snapshotClient
	workspaceClient
	secretClient
}

// The groups of calls.
type (
	vmClient        struct{ *transport }
	guestClient     struct{ *transport }
	sessionClient   struct{ *transport }
	networkClient   struct{ *transport }
	imageClient     struct{ *transport }
	kernelClient    struct{ *transport }
	templateClient  struct{ *transport }
	snapshotClient  struct{ *transport }
	workspaceClient struct{ *transport }
	secretClient    struct{ *transport }
)

// transport is a wire.Transport whose methods are not those of a Client.
type transport struct{ wire *wire.Transport }

func (c *transport) send(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	return c.wire.Send(ctx, method, path, query, body)
}

func (c *transport) call(ctx context.Context, method, path string, query url.Values, body, out any) error {
	return c.wire.Call(ctx, method, path, query, body, out)
}

func (c *transport) stream(ctx context.Context, path string, query url.Values, body any,
	emit banger.Emit) (banger.Event, error) {
	return c.wire.Stream(ctx, path, query, body, emit)
}

func (c *transport) upgrade(ctx context.Context, path string, query url.Values, body any,
	protocol string) (net.Conn, error) {
	return c.wire.Upgrade(ctx, path, query, body, protocol)
}

// New returns a client of the daemon at socket. It connects lazily.
func New(socket string) *Client { return over(wire.New(socket)) }

// Over returns a client over connections that dial makes.
func Over(dial wire.Dial) *Client { return over(wire.Over(dial)) }

func over(w *wire.Transport) *Client {
	t := &transport{w}
	return &Client{t, vmClient{t}, guestClient{t}, sessionClient{t}, networkClient{t}, imageClient{t}, kernelClient{t},
		templateClient{t}, snapshotClient{t}, workspaceClient{t}, secretClient{t}}
}

// Version returns the daemon's version, state and abilities.
func (c *Client) Version(ctx context.Context) (v wire.Version, err error) {
	return v, c.call(ctx, "GET", "/v1/version", nil, nil, &v)
}

// Usage returns what is on the disk, by kind. With each, it also returns each VM and each snapshot.
func (c *Client) Usage(ctx context.Context, each bool) (list []wire.Usage, err error) {
	q := url.Values{"each": {strconv.FormatBool(each)}}
	return list, c.call(ctx, "GET", "/v1/usage", q, nil, &list)
}

// OpenUI opens the web UI, and returns an address for one browser.
func (c *Client) OpenUI(ctx context.Context) (address string, err error) {
	var ui wire.UI
	err = c.call(ctx, "POST", "/v1/ui", nil, nil, &ui)
	return ui.URL, err
}

// CloseUI closes the web UI, and ends the sessions of all browsers.
func (c *Client) CloseUI(ctx context.Context) error {
	return c.call(ctx, "DELETE", "/v1/ui", nil, nil, nil)
}

// Shutdown asks the daemon to end. VMs keep running.
func (c *Client) Shutdown(ctx context.Context) (v wire.Version, err error) {
	return v, c.call(ctx, "POST", "/v1/shutdown", nil, nil, &v)
}
