package guest

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"banger"
)

// TestAFrozenAgentEndsCalls: if an agent accepts requests and never answers, each call ends in time with an error.
func TestAFrozenAgentEndsCalls(t *testing.T) {
	const mute = "the guest's agent does not answer"
	for name, tt := range map[string]struct {
		call func(context.Context, Client) error
		in   time.Duration
		text string
	}{
		"ping":   {func(ctx context.Context, c Client) error { _, err := c.Ping(ctx); return err }, callTimeout, mute},
		"signal": {func(ctx context.Context, c Client) error { return c.Signal(ctx, 1) }, callTimeout, mute},
		"stat": {func(ctx context.Context, c Client) error {
			_, err := c.StatFile(ctx, banger.FileRequest{})
			return err
		}, callTimeout, mute},
		"ssh": {func(ctx context.Context, c Client) error {
			_, err := c.SSH(ctx, banger.SSH{})
			return err
		}, callTimeout, mute},
		"changes": {func(ctx context.Context, c Client) error {
			r, err := c.Changes(ctx)
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.Copy(io.Discard, r)
			return err
		}, changesTime, "the guest's agent is silent: for 2m0s nothing came of the changes"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer far.Close()
				go io.Copy(io.Discard, far) // ends with near
				c := Client{Dial: func(context.Context) (net.Conn, error) { return near, nil }}
				began := time.Now()
				err := tt.call(t.Context(), c)
				took := time.Since(began)
				if banger.CodeOf(err) != banger.CodeTimeout || !strings.HasPrefix(err.Error(), tt.text+" (") || took != tt.in {
					t.Errorf("after %s the error is %v", took, err)
				}
				if _, err := near.Write(nil); err != io.ErrClosedPipe {
					t.Errorf("its connection is left open: %v", err)
				}
			})
		})
	}
}

// TestACanceledCommitIsCanceled: the end of the caller's context is not reported as a silent agent.
func TestACanceledCommitIsCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		go io.Copy(io.Discard, far) // ends with near
		c := Client{Dial: func(context.Context) (net.Conn, error) { return near, nil }}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r, err := c.Changes(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := r.Read(make([]byte, 1)); err == nil || banger.CodeOf(err) == banger.CodeTimeout {
			t.Errorf("a commit that is given up gives %v", err)
		}
		if _, err := r.Read(make([]byte, 1)); err == nil || banger.CodeOf(err) == banger.CodeTimeout {
			t.Errorf("a second read gives %v", err)
		}
	})
}
