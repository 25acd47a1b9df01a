package guest

import "context"

// Suspend TEMPORARY.
func (c Client) Suspend(ctx context.Context) error {
	_, err := c.brief(ctx, Request{Op: "suspend"})
	return err
}

// Thaw TEMPORARY.
func (c Client) Thaw(ctx context.Context) error {
	_, err := c.brief(ctx, Request{Op: "thaw"})
	return err
}
