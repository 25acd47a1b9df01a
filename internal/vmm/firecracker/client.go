package firecracker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"banger/internal/text"
)

const (
	maxBody     = 51200   // bytes of a request (api_server: HTTP_MAX_PAYLOAD_SIZE)
	maxAnswer   = 1 << 20 // bytes of an answer that are read
	maxFault    = 500     // characters of a fault that are told
	callTimeout = 10 * time.Second
)

// client speaks Firecracker's API over its unix socket. What it is told is a VMM's word,
// which a guest may have subverted: it is bounded, timed out and made printable.
type client struct{ http *http.Client }

// newClient returns a client of the API at socket, which need not be there yet.
func newClient(socket string) *client {
	return &client{&http.Client{
		Transport: &http.Transport{
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dialSocket(ctx, socket) },
			DisableKeepAlives:      true, // a call is rare, and an idle connection would hold one of the server's few places
			DisableCompression:     true,
			MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("the API does not redirect") },
	}}
}

// fault is a refusal by Firecracker.
type fault struct {
	status  int
	message string
}

func (f *fault) Error() string {
	if f.message == "" {
		return fmt.Sprintf("status %d without a reason", f.status)
	}
	return f.message
}

// call makes a request; body nil is none, answer nil takes none. A context without a
// deadline gets one of callTimeout.
func (c *client) call(ctx context.Context, method, path string, body, answer any) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	if err := c.exchange(ctx, method, path, body, answer); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		var refused *fault
		if errors.As(err, &refused) {
			return fmt.Errorf("%s refused %s %s: %w", title, method, path, err)
		}
		return fmt.Errorf("asking Firecracker for %s %s: %w", method, path, err)
	}
	return nil
}

func (c *client) exchange(ctx context.Context, method, path string, body, answer any) error {
	var payload io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		if len(data) > maxBody {
			return fmt.Errorf("the request has %d bytes, more than the %d that are taken", len(data), maxBody)
		}
		payload = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, payload)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return err
	}
	return understand(resp.StatusCode, data, answer)
}

// understand reads an answer: 200 with a body, 204 without, a fault otherwise.
func understand(status int, data []byte, answer any) error {
	if len(data) > maxAnswer {
		return fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	switch {
	case status != http.StatusOK && status != http.StatusNoContent:
		var e Error
		if json.Unmarshal(data, &e) != nil {
			return &fault{status: status}
		}
		return &fault{status: status, message: sentence(e.FaultMessage)}
	case answer == nil:
		return nil
	case status == http.StatusNoContent:
		return errors.New("the answer is empty")
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("the answer is no such JSON: %w", err)
	}
	return nil
}

// sentence makes one line of text, of bounded length.
func sentence(said string) string {
	return strings.TrimSuffix(text.Limit(strings.Join(strings.Fields(said), " "), maxFault), ".")
}
