package comparison

import (
	"context"
	"sync"
	"time"

	"banger"
	"banger/internal/guest"
)

// Still returns a client of the agent of a helper that reads the disk of the VM, or of the snapshot, that ref names.
// The caller calls release once it needs the helper no longer, from any goroutine, and more than once if it likes. If
// keep is true then, and the disk is still the same, the next call gets the same helper, unless that comes late. The
// helper also ends with the Comparer and after a limit.
func (c *Comparer) Still(ctx context.Context, ref string) (agent guest.Client, release func(keep bool), err error) {
	if err := c.enter(ctx); err != nil {
		return agent, nil, err
	}
	h, err := c.still(ctx, ref)
	if err != nil {
		c.leave()
		return agent, nil, c.explain(ctx, "the disk cannot be read", err)
	}
	var once sync.Once
	within, cancel := context.WithTimeout(c.ctx, limit)
	release = func(keep bool) {
		once.Do(func() {
			defer c.leave()
			if keep && within.Err() == nil {
				c.keep(h)
			} else {
				c.end(h)
			}
			cancel()
		})
	}
	context.AfterFunc(within, func() { release(false) })
	return h.agent, release, nil
}

// still returns a helper, for a caller that has the place.
func (c *Comparer) still(ctx context.Context, ref string) (*helper, error) {
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	disk, give, err := c.branches.Still(within, ref, banger.Discard)
	if err != nil {
		return nil, err
	}
	if h := c.kept; h != nil && h.layer == disk.Layer { // nothing was written since
		c.kept = nil
		h.late.Stop()
		give()
		return h, nil
	}
	c.drop()
	h, err := c.start(within, sides{of: disk.Machine, after: disk.Layer}, banger.Discard)
	if err != nil {
		give()
		return nil, err
	}
	h.give = give
	return h, nil
}

// keep keeps a helper for a while. The caller has the place.
func (c *Comparer) keep(h *helper) {
	c.kept = h
	h.late = time.AfterFunc(keepTime, func() {
		if c.enter(context.Background()) != nil {
			return // Close drops it
		}
		defer c.leave()
		if c.kept == h {
			c.drop()
		}
	})
}

// drop ends the helper that is kept. The caller has the place.
func (c *Comparer) drop() {
	if c.kept != nil {
		c.kept.late.Stop()
		c.end(c.kept)
		c.kept = nil
	}
}

// end removes a helper, and gives its layers back.
func (c *Comparer) end(h *helper) {
	if err := c.remove(h.id); err != nil {
		c.log.Warn("a VM that read a disk was not removed", "err", err)
	}
	h.give()
}
