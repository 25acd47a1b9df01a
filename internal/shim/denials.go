package shim

import (
	"context"
	"encoding/json"
	"io"
	"sync"
	"time"

	"banger"
)

// Bounds of what is kept of denials.
const (
	maxDenials   = 1000        // a multiple of two
	denialWindow = time.Second // alike ones within it are told once, with their number
)

// denials are the last that the VM's policy has refused.
type denials struct {
	mu      sync.Mutex
	list    []banger.Denial
	dropped int           // how many went out of list
	changed chan struct{} // closed and replaced at each change
}

func newDenials() *denials { return &denials{changed: make(chan struct{})} }

// add notes a denial. What a flooding guest repeats is counted, not listed.
func (d *denials) add(n banger.Denial) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := len(d.list) - 1; i >= 0 && i >= len(d.list)-16; i-- {
		o := &d.list[i]
		if n.Time.Sub(o.Time) < denialWindow && o.Protocol == n.Protocol && o.Address == n.Address && o.Port == n.Port && o.Name == n.Name {
			o.Count = max(o.Count, 1) + 1
			return
		}
	}
	if len(d.list) == maxDenials {
		d.list = append(d.list[:0], d.list[maxDenials/2:]...)
		d.dropped += maxDenials / 2
	}
	d.list = append(d.list, n)
	close(d.changed)
	d.changed = make(chan struct{})
}

// follow writes the last tail denials (all when negative) and those to come, until
// the VMM ends, ctx does, or w takes no more.
func (d *denials) follow(ctx context.Context, ended <-chan struct{}, tail int, w io.Writer) {
	d.mu.Lock()
	next := d.dropped
	if n := len(d.list); tail >= 0 && n > tail {
		next += n - tail
	}
	d.mu.Unlock()
	enc := json.NewEncoder(w)
	for {
		d.mu.Lock()
		from := max(next-d.dropped, 0)
		batch := append([]banger.Denial(nil), d.list[min(from, len(d.list)):]...)
		next = d.dropped + len(d.list)
		changed := d.changed
		d.mu.Unlock()
		for _, n := range batch {
			if enc.Encode(n) != nil {
				return
			}
		}
		select {
		case <-changed:
		case <-ended:
			return
		case <-ctx.Done():
			return
		}
	}
}
