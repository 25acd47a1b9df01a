package wire

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

// maxError is the most that is read of an answer with an error, in bytes.
const maxError = 1 << 20

// Transport sends requests and reads answers.
type Transport struct {
	dial Dial
	http *http.Client
}

// Dial makes a connection to the daemon.
type Dial func(ctx context.Context) (net.Conn, error)

// New returns a transport to the daemon at socket. It connects lazily.
func New(socket string) *Transport {
	return Over(func(ctx context.Context) (net.Conn, error) { return private.Dial(ctx, socket) })
}

// Over returns a transport over connections that dial makes.
func Over(dial Dial) *Transport {
	byName := func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }
	return &Transport{dial, &http.Client{Transport: &http.Transport{DialContext: byName}}}
}

// request returns a request with body as JSON. A body that is an io.Reader is sent unchanged.
func (c *Transport) request(ctx context.Context, method, path string, query url.Values,
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
	req.Header.Set(HeaderAPI, strconv.Itoa(banger.APIVersion))
	return req, SetAccess(req, banger.RegistryAccessOf(ctx))
}

// Send sends a request and returns a successful response, whose body the caller must close.
func (c *Transport) Send(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
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
	var body ErrorBody
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxError)).Decode(&body); err != nil || body.Error == nil {
		return banger.Errorf(banger.CodeInternal, "the daemon answered %s without a reason", resp.Status)
	}
	return body.Error
}

// Call decodes the JSON answer into out, unless out is nil.
func (c *Transport) Call(ctx context.Context, method, path string, query url.Values, body, out any) error {
	resp, err := c.Send(ctx, method, path, query, body)
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

// Stream passes events to emit and returns the last event, which holds the result.
func (c *Transport) Stream(ctx context.Context, path string, query url.Values, body any,
	emit banger.Emit) (banger.Event, error) {
	resp, err := c.Send(ctx, "POST", path, query, body)
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
		case e.VM != nil || e.VMs != nil || e.Image != nil || e.Images != nil || e.Kernel != nil ||
			e.Compared != nil:
			return e, nil
		}
		emit(e)
	}
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

// Upgrade sends a request after which the connection carries another protocol.
func (c *Transport) Upgrade(ctx context.Context, path string, query url.Values, body any,
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

// ReadLines calls tell with each JSON value of d, until ctx ends or there are no more, which are no errors.
func ReadLines[T any](ctx context.Context, d *json.Decoder, tell func(T)) error {
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
