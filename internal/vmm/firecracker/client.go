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
	maxAnswer   = 1 << 20 // largest answer that is read, in bytes
	maxFault    = 500     // characters of a fault that are passed on
	callTimeout = 10 * time.Second
)

// client speaks Firecracker's API over its unix socket. A guest may have subverted the VMM, so the
// client bounds the size and the time of answers and makes them printable.
type client struct{ http *http.Client }

// newClient returns a client of the API at socket, which need not exist yet.
func newClient(socket string) *client {
	return &client{&http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dialSocket(ctx, socket) },
			// Calls are rare, and an idle connection would occupy one of the server's few slots.
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("the API does not redirect") },
	}}
}

// fault is Firecracker's refusal of a request.
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

// call makes a request. A nil body sends none; a nil answer discards the response. If ctx has no
// deadline, the call fails after callTimeout. A refusal by Firecracker is a fault.
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

// understand decodes a response: status 200 has a body, 204 has none, and any other status is a
// fault.
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
		return fmt.Errorf("the answer is not the expected JSON: %w", err)
	}
	return nil
}

// sentence makes one printable line of text, of bounded length.
func sentence(said string) string {
	return strings.TrimSuffix(text.Limit(strings.Join(strings.Fields(said), " "), maxFault), ".")
}
