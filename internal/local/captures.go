package local

import (
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"banger"
	"banger/internal/exchange"
	"banger/internal/tree"
	"banger/internal/workspace"
)

// Bounds of what is open.
const (
	maxCaptures = 8
	idleTime    = 30 * time.Minute // after which a capture that nobody uses is closed
)

// held is a capture that stays open, so that what is taken later is what was looked at.
type held struct {
	id, vm, name string
	place        *exchange.Place
	capture      *workspace.Capture
	differences  []tree.Difference
	hazards      []workspace.Hazard
	commits      int

	using sync.Mutex // one request at a time works with it

	// These belong to captures.mu.
	users int // requests that use it or wait for it
	used  time.Time
	gone  bool // it is closed after its last user
	timer *time.Timer
}

// hazardsFirst puts the files that tools may obey before the others.
func (h *held) hazardsFirst() {
	obeyed := map[string]bool{}
	for _, hazard := range h.hazards {
		obeyed[hazard.Path] = true
	}
	slices.SortStableFunc(h.differences, func(a, b tree.Difference) int {
		switch {
		case obeyed[a.Path] == obeyed[b.Path]:
			return 0
		case obeyed[a.Path]:
			return -1
		}
		return 1
	})
}

// captures are the captures that are open.
type captures struct {
	mu     sync.Mutex
	open   map[string]*held
	closed bool
}

// add keeps a capture open under a new id. If there are too many, the one that was not used for the longest time goes.
// If add fails, the capture is closed.
func (c *captures) add(h *held) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.makeRoom(); err != nil {
		h.capture.Close()
		return err
	}
	if c.open == nil {
		c.open = map[string]*held{}
	}
	h.id, h.used = rand.Text(), time.Now()
	h.timer = time.AfterFunc(idleTime, func() { c.expire(h) })
	c.open[h.id] = h
	return nil
}

// makeRoom makes room for one more capture. mu is held.
func (c *captures) makeRoom() error {
	if c.closed {
		return banger.Errorf(banger.CodeUnavailable, "the web UI ends")
	}
	if len(c.open) < maxCaptures {
		return nil
	}
	var oldest *held
	for _, h := range c.open {
		if h.users == 0 && (oldest == nil || h.used.Before(oldest.used)) {
			oldest = h
		}
	}
	if oldest == nil {
		return banger.Errorf(banger.CodeUnavailable, "%d workspaces are being looked at", maxCaptures).
			WithHint("repeat the request when one of them is done")
	}
	c.remove(oldest)
	return nil
}

// remove closes a capture, after its last user. mu is held.
func (c *captures) remove(h *held) {
	delete(c.open, h.id)
	h.timer.Stop()
	if h.gone = true; h.users == 0 {
		h.capture.Close()
	}
}

// expire closes a capture that nobody has used for long.
func (c *captures) expire(h *held) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.users == 0 && !h.gone && time.Since(h.used) >= idleTime {
		c.remove(h)
	}
}

// begin returns an open capture of a workspace, for one request at a time. The caller calls done.
func (c *captures) begin(vm, name, id string) (h *held, done func(), err error) {
	c.mu.Lock()
	h = c.open[id]
	if h == nil || h.vm != vm || h.name != name {
		c.mu.Unlock()
		return nil, nil, banger.Errorf(banger.CodeNotFound, "what was seen of workspace %.100q is not kept any more", name).
			WithHint("look at the workspace again")
	}
	h.users++
	h.timer.Stop()
	c.mu.Unlock()
	h.using.Lock()
	return h, func() {
		h.using.Unlock()
		c.mu.Lock()
		defer c.mu.Unlock()
		h.users--
		h.used = time.Now()
		switch {
		case h.users > 0:
		case h.gone:
			h.capture.Close()
		default:
			h.timer.Reset(idleTime)
		}
	}, nil
}

// drop closes a capture at the request of who looked at it.
func (c *captures) drop(vm, name, id string) error {
	h, done, err := c.begin(vm, name, id)
	if err != nil {
		return err
	}
	defer done()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !h.gone {
		c.remove(h)
	}
	return nil
}

// close closes all captures. It waits for their users, whose requests must have been ended.
func (c *captures) close() {
	c.mu.Lock()
	c.closed = true
	all := c.open
	c.open = nil
	for _, h := range all {
		h.timer.Stop()
	}
	c.mu.Unlock()
	for _, h := range all {
		h.using.Lock()
		h.capture.Close()
		h.using.Unlock()
	}
}
