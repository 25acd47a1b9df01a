// Package denial keeps what the policy of a VM has refused, with the process of the guest that it was refused to. It
// must not know a policy, nor how the agent is reached.
package denial

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"banger"
	"banger/internal/untrusted"
)

// Bounds of the denials that are kept.
const (
	maxDenials   = 1000        // a multiple of two
	denialWindow = time.Second // similar denials within this time are listed once, with their number
)

// Log has the last denials of the VM's policy. Its methods may be called at the same time.
type Log struct {
	mu      sync.Mutex
	list    []banger.Denial
	dropped int           // number of denials removed from list
	changed chan struct{} // closed and replaced at each change
}

// NewLog returns a Log without denials.
func NewLog() *Log { return &Log{changed: make(chan struct{})} }

// repeats counts a denial that is like one of the last, and reports whether it is.
func (d *Log) repeats(n banger.Denial) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.repeatsLocked(n)
}

func (d *Log) repeatsLocked(n banger.Denial) bool {
	for i := len(d.list) - 1; i >= 0 && i >= len(d.list)-16; i-- {
		o := &d.list[i]
		if n.Time.Sub(o.Time) < denialWindow && o.Protocol == n.Protocol && o.Address == n.Address && o.Port == n.Port &&
			o.Name == n.Name {
			o.Count = max(o.Count, 1) + 1
			return true
		}
	}
	return false
}

// Add records a denial. A denial that a flooding guest repeats is counted, not listed.
func (d *Log) Add(n banger.Denial) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.repeatsLocked(n) {
		return
	}
	if len(d.list) == maxDenials {
		d.list = append(d.list[:0], d.list[maxDenials/2:]...)
		d.dropped += maxDenials / 2
	}
	d.list = append(d.list, n)
	close(d.changed)
	d.changed = make(chan struct{})
}

// Write writes the last tail denials (all if tail is negative) and, with follow, new ones until the VMM ends, ctx
// ends, or w fails.
func (d *Log) Write(ctx context.Context, ended <-chan struct{}, tail int, follow bool, w io.Writer) error {
	d.mu.Lock()
	next := d.dropped
	if n := len(d.list); tail >= 0 && n > tail {
		next += n - tail
	}
	d.mu.Unlock()
	enc := json.NewEncoder(w)
	for {
		d.mu.Lock()
		batch := slices.Clone(d.list[min(max(next-d.dropped, 0), len(d.list)):])
		next = d.dropped + len(d.list)
		changed := d.changed
		d.mu.Unlock()
		for _, n := range batch {
			if err := enc.Encode(n); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		select {
		case <-changed:
		case <-ended:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// Save stores the denials for readers after the VM has ended.
func (d *Log) Save(path string) error {
	f, err := untrusted.Create(path, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(d.Write(context.Background(), nil, -1, false, f), f.Close())
}
