// Package contextio makes reading end with a context. It must not know what is read.
package contextio

import (
	"context"
	"io"
)

// NewReader returns a reader of r that returns the context's error once the context has ended. A Read of r that is
// under way is not interrupted.
func NewReader(ctx context.Context, r io.Reader) io.Reader { return &reader{ctx, r} }

type reader struct {
	ctx context.Context
	r   io.Reader
}

func (c *reader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
