package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/private"
)

// bufferedConn first reads what an HTTP reader had buffered, and then the connection.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// CloseWrite half-closes the connection if its transport can do that.
func (c bufferedConn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return io.ErrClosedPipe
}

// Client calls the API over the daemon's unix socket. Its methods return the daemon's own *Error, or CodeUnavailable
// when no daemon answers. They send the banger.RegistryAccess of their context.
type Client struct {
	*transport
	vmClient
	guestClient
	networkClient
	imageClient
	kernelClient
	templateClient
}

// The groups of calls.
type (
	vmClient       struct{ *transport }
	guestClient    struct{ *transport }
	networkClient  struct{ *transport }
	imageClient    struct{ *transport }
	kernelClient   struct{ *transport }
	templateClient struct{ *transport }
)

// transport sends requests and reads answers.
type transport struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the daemon at socket. It connects lazily.
func NewClient(socket string) *Client {
	t := &transport{socket: socket}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return t.dial(ctx) }
	t.http = &http.Client{Transport: &http.Transport{DialContext: dial}}
	return &Client{t, vmClient{t}, guestClient{t}, networkClient{t}, imageClient{t}, kernelClient{t}, templateClient{t}}
}

func (c *transport) dial(ctx context.Context) (net.Conn, error) {
	return private.Dial(ctx, c.socket)
}

// request returns a request with body as JSON. A body that is an io.Reader is sent unchanged.
func (c *transport) request(ctx context.Context, method, path string, query url.Values,
	body any) (*http.Request, error) {
	r, raw := body.(io.Reader)
	if body != nil && !raw {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(data)
	}
	u := url.URL{Scheme: "http", Host: "banger", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), r)
	if err != nil {
		return nil, err
	}
	req.Header.Set(headerAPI, strconv.Itoa(banger.APIVersion))
	return req, setAccess(req, banger.RegistryAccessOf(ctx))
}

// send sends a request and returns a successful response, whose body the caller must close.
func (c *transport) send(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	req, err := c.request(ctx, method, path, query, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, banger.Canceled(ctx.Err())
		}
		return nil, silent(err)
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return resp, nil
}

// silent returns the error for a daemon that does not answer. If err says that the socket cannot be trusted, silent
// returns err itself; then nothing was sent.
func silent(err error) error {
	if refused, ok := errors.AsType[*banger.Error](err); ok {
		return refused
	}
	return banger.Errorf(banger.CodeUnavailable, "the daemon does not answer: %w", err).
		WithHint("see: banger daemon status")
}

func readError(resp *http.Response) error {
	var body errorBody
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&body); err != nil || body.Error == nil {
		return banger.Errorf(banger.CodeInternal, "the daemon answered %s without a reason", resp.Status)
	}
	return body.Error
}

// call decodes the JSON answer into out, unless out is nil.
func (c *transport) call(ctx context.Context, method, path string, query url.Values, body, out any) error {
	resp, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return banger.Errorf(banger.CodeInternal, "cannot read the daemon's answer: %w", err)
	}
	return nil
}

// stream passes events to emit and returns the last event, which holds the result.
func (c *transport) stream(ctx context.Context, path string, query url.Values, body any,
	emit banger.Emit) (banger.Event, error) {
	resp, err := c.send(ctx, "POST", path, query, body)
	if err != nil {
		return banger.Event{}, err
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	for {
		var e banger.Event
		switch err := d.Decode(&e); {
		case ctx.Err() != nil:
			return e, banger.Canceled(ctx.Err())
		case err != nil:
			return e, banger.Errorf(banger.CodeUnavailable, "the daemon went away: %w", err).
				WithHint("see: banger daemon status")
		case e.Error != nil:
			return e, e.Error
		case e.VM != nil || e.Image != nil || e.Images != nil || e.Kernel != nil:
			return e, nil
		}
		emit(e)
	}
}

// Version returns the daemon's version, state and abilities.
func (c *Client) Version(ctx context.Context) (v Version, err error) {
	return v, c.call(ctx, "GET", "/v1/version", nil, nil, &v)
}

// Shutdown asks the daemon to end. VMs keep running.
func (c *Client) Shutdown(ctx context.Context) (v Version, err error) {
	return v, c.call(ctx, "POST", "/v1/shutdown", nil, nil, &v)
}

func roundTrip(conn net.Conn, req *http.Request) (*http.Response, *bufio.Reader, error) {
	if err := req.Write(conn); err != nil {
		return nil, nil, fmt.Errorf("asking the daemon: %w", err)
	}
	r := bufio.NewReaderSize(conn, frame.Header+frame.MaxData)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return resp, r, nil
}

// upgrade sends a request after which the connection carries another protocol.
func (c *transport) upgrade(ctx context.Context, path string, query url.Values, body any,
	protocol string) (net.Conn, error) {
	req, err := c.request(ctx, "POST", path, query, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", protocol)
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, silent(err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	resp, r, err := roundTrip(conn, req)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = readError(resp)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return bufferedConn{conn, r}, nil
}

// readLines calls tell with each JSON value of d, until ctx ends or there are no more, which are no errors.
func readLines[T any](ctx context.Context, d *json.Decoder, tell func(T)) error {
	for {
		var v T
		switch err := d.Decode(&v); {
		case ctx.Err() != nil || errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return banger.Errorf(banger.CodeUnavailable, "the daemon went away: %w", err).
				WithHint("see: banger daemon status")
		}
		tell(v)
	}
}
