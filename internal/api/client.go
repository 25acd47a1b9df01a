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
	"banger/internal/private"
)

// Client calls the API over the daemon's unix socket. Its methods return the daemon's own *Error, or CodeUnavailable
// when no daemon answers.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the daemon at socket. It connects lazily.
func NewClient(socket string) *Client {
	c := &Client{socket: socket}
	c.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn,
		error) {
		return c.dial(ctx)
	}}}
	return c
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	return private.Dial(ctx, c.socket)
}

// request returns a request with body as JSON. A body that is an io.Reader is sent unchanged.
func (c *Client) request(ctx context.Context, method, path string, query url.Values, body any) (*http.Request, error) {
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
	return req, nil
}

// send sends a request and returns a successful response, whose body the caller must close.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	req, err := c.request(ctx, method, path, query, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, banger.Errorf(banger.CodeCanceled, "canceled: %w", ctx.Err())
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
func (c *Client) call(ctx context.Context, method, path string, query url.Values, body, out any) error {
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
func (c *Client) stream(ctx context.Context, path string, query url.Values, body any,
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
			return e, banger.Errorf(banger.CodeCanceled, "canceled: %w", ctx.Err())
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

func (c *Client) streamVM(ctx context.Context, path string, query url.Values, body any,
	emit banger.Emit) (banger.VM, error) {
	e, err := c.stream(ctx, path, query, body, emit)
	if err != nil || e.VM == nil {
		return banger.VM{}, err
	}
	return *e.VM, nil
}

func vmPath(ref, verb string) string {
	p := "/v1/vms/" + ref
	if verb != "" {
		p += "/" + verb
	}
	return p
}

// Version returns the daemon's version, state and abilities.
func (c *Client) Version(ctx context.Context) (v Version, err error) {
	return v, c.call(ctx, "GET", "/v1/version", nil, nil, &v)
}

// Shutdown asks the daemon to end. VMs keep running.
func (c *Client) Shutdown(ctx context.Context) (v Version, err error) {
	return v, c.call(ctx, "POST", "/v1/shutdown", nil, nil, &v)
}

// Create makes a VM and, with start, boots it.
func (c *Client) Create(ctx context.Context, spec banger.Spec, start bool, emit banger.Emit) (banger.VM, error) {
	return c.streamVM(ctx, "/v1/vms", url.Values{"start": {strconv.FormatBool(start)}}, spec, emit)
}

// Start boots a VM.
func (c *Client) Start(ctx context.Context, ref string, attach bool, emit banger.Emit) (banger.VM, error) {
	return c.streamVM(ctx, vmPath(ref, "start"), url.Values{"attach": {strconv.FormatBool(attach)}}, nil, emit)
}

// Restart stops and starts a VM.
func (c *Client) Restart(ctx context.Context, ref string, grace time.Duration, emit banger.Emit) (banger.VM, error) {
	return c.streamVM(ctx, vmPath(ref, "restart"), graceQuery(grace), nil, emit)
}

// graceQuery returns the query for grace. A negative grace leaves the daemon's default in force.
func graceQuery(grace time.Duration) url.Values {
	if grace < 0 {
		return nil
	}
	return url.Values{"grace": {strconv.Itoa(int(grace / time.Second))}}
}

// Stop shuts a VM down. grace has a resolution of one second.
func (c *Client) Stop(ctx context.Context, ref string, grace time.Duration) (vm banger.VM, err error) {
	return vm, c.call(ctx, "POST", vmPath(ref, "stop"), graceQuery(grace), nil, &vm)
}

// Kill sends a signal to a VM's main command.
func (c *Client) Kill(ctx context.Context, ref string, signal int) (vm banger.VM, err error) {
	return vm, c.call(ctx, "POST", vmPath(ref, "kill"), url.Values{"signal": {strconv.Itoa(signal)}}, nil, &vm)
}

// Remove deletes a VM.
func (c *Client) Remove(ctx context.Context, ref string, force bool) error {
	return c.call(ctx, "DELETE", vmPath(ref, ""), url.Values{"force": {strconv.FormatBool(force)}}, nil, nil)
}

// Rename gives a VM another name.
func (c *Client) Rename(ctx context.Context, ref, name string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "POST", vmPath(ref, "rename"), nil, renameRequest{name}, &vm)
}

// Wait returns when a VM is at rest or has been removed.
func (c *Client) Wait(ctx context.Context, ref string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "GET", vmPath(ref, "wait"), nil, nil, &vm)
}

// Get returns one VM, with HiddenValue in place of the values of its environment.
func (c *Client) Get(ctx context.Context, ref string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "GET", vmPath(ref, ""), nil, nil, &vm)
}

// GetWithEnv returns one VM with the values of its environment.
func (c *Client) GetWithEnv(ctx context.Context, ref string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "GET", vmPath(ref, ""), url.Values{"env": {"true"}}, nil, &vm)
}

// List returns VMs, newest first. Without all, it returns only running VMs.
func (c *Client) List(ctx context.Context, all bool, filters []string) (list []banger.VM, err error) {
	return list, c.call(ctx, "GET", "/v1/vms", url.Values{"all": {strconv.FormatBool(all)}, "filter": filters}, nil, &list)
}

// Prune removes all VMs at rest.
func (c *Client) Prune(ctx context.Context) (list []banger.VM, err error) {
	return list, c.call(ctx, "POST", "/v1/vms/prune", nil, nil, &list)
}

// Logs returns the console's output, which the caller must close. A negative tail means all lines.
func (c *Client) Logs(ctx context.Context, ref string, tail int, follow bool) (io.ReadCloser, error) {
	q := url.Values{"follow": {strconv.FormatBool(follow)}}
	if tail >= 0 {
		q.Set("tail", strconv.Itoa(tail))
	}
	resp, err := c.send(ctx, "GET", vmPath(ref, "logs"), q, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Exec opens the stream of a command, which carries frames of package banger in both directions. The caller owns the
// connection.
func (c *Client) Exec(ctx context.Context, ref string, e banger.Exec) (net.Conn, error) {
	return c.upgrade(ctx, vmPath(ref, "exec"), nil, e, upgradeExec)
}

func roundTrip(conn net.Conn, req *http.Request) (*http.Response, *bufio.Reader, error) {
	if err := req.Write(conn); err != nil {
		return nil, nil, fmt.Errorf("asking the daemon: %w", err)
	}
	r := bufio.NewReaderSize(conn, banger.FrameHeader+banger.MaxData)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return resp, r, nil
}

// PullKernel installs the distribution's kernel.
func (c *Client) PullKernel(ctx context.Context, emit banger.Emit) (banger.Kernel, error) {
	return c.streamKernel(ctx, "/v1/kernels/pull", nil, emit)
}

// ImportKernel installs a kernel from files. An empty image means the host's own kernel.
func (c *Client) ImportKernel(ctx context.Context, name, image, modules string,
	emit banger.Emit) (banger.Kernel, error) {
	return c.streamKernel(ctx, "/v1/kernels/import", importRequest{name, image, modules}, emit)
}

func (c *Client) streamKernel(ctx context.Context, path string, body any, emit banger.Emit) (banger.Kernel, error) {
	e, err := c.stream(ctx, path, nil, body, emit)
	if err != nil || e.Kernel == nil {
		return banger.Kernel{}, err
	}
	return *e.Kernel, nil
}

// Kernels returns all kernels.
func (c *Client) Kernels(ctx context.Context) (list []banger.Kernel, err error) {
	return list, c.call(ctx, "GET", "/v1/kernels", nil, nil, &list)
}

// Kernel returns one kernel.
func (c *Client) Kernel(ctx context.Context, name string) (k banger.Kernel, err error) {
	return k, c.call(ctx, "GET", "/v1/kernels/"+name, nil, nil, &k)
}

// RemoveKernel deletes a kernel.
func (c *Client) RemoveKernel(ctx context.Context, name string) error {
	return c.call(ctx, "DELETE", "/v1/kernels/"+name, nil, nil, nil)
}
