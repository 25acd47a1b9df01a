// Package decision keeps what the policy of a VM has refused and allowed, with the process of the guest that asked for
// it. It must not know a policy, nor how the agent is reached.
package decision

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

// Bounds of what is kept.
const (
	kept   = 1000        // refusals, and as many others; a multiple of two
	window = time.Second // similar decisions within this time are listed once, with their number
)

// Log has the last refusals of the VM's policy, and the last flows that it has allowed. The latter never take the place
// of the former. Its methods may be called at the same time.
type Log struct {
	mu               sync.Mutex
	refused, allowed list
}

// list has the last decisions of one kind. The mu of its Log guards it.
type list struct {
	last    []banger.Decision
	dropped int           // number of decisions removed from last
	changed chan struct{} // closed and replaced at each change
}

// NewLog returns an empty Log.
func NewLog() *Log {
	return &Log{refused: list{changed: make(chan struct{})}, allowed: list{changed: make(chan struct{})}}
}

// of returns the list for decisions like n.
func (l *Log) of(n banger.Decision) *list {
	if n.Allowed {
		return &l.allowed
	}
	return &l.refused
}

// repeats counts a decision that is like one of the last, and reports whether it is.
func (l *Log) repeats(n banger.Decision) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of(n).repeats(n)
}

func (l *list) repeats(n banger.Decision) bool {
	for i := len(l.last) - 1; i >= 0 && i >= len(l.last)-16; i-- {
		o := &l.last[i]
		if n.Time.Sub(o.Time) < window && o.Protocol == n.Protocol && o.Address == n.Address && o.Port == n.Port &&
			o.Name == n.Name && o.Rule == n.Rule {
			o.Count = max(o.Count, 1) + 1
			return true
		}
	}
	return false
}

// Add records a decision. One that a flooding guest repeats is counted, not listed.
func (l *Log) Add(n banger.Decision) {
	l.mu.Lock()
	defer l.mu.Unlock()
	to := l.of(n)
	if to.repeats(n) {
		return
	}
	if len(to.last) == kept {
		to.last = append(to.last[:0], to.last[kept/2:]...)
		to.dropped += kept / 2
	}
	to.last = append(to.last, n)
	close(to.changed)
	to.changed = make(chan struct{})
}

// since returns what was added from the place at on, and moves at behind it.
func (l *list) since(at *int) []banger.Decision {
	batch := l.last[min(max(*at-l.dropped, 0), len(l.last)):]
	*at = l.dropped + len(l.last)
	return batch
}

// Write writes the last tail refusals (all if tail is negative), with all also what was allowed, in order of time.
// With follow, it also writes new ones until the VMM ends, ctx ends, or w fails.
func (l *Log) Write(ctx context.Context, ended <-chan struct{}, all bool, tail int, follow bool, w io.Writer) error {
	enc := json.NewEncoder(w)
	var refused, allowed int // where in the lists the next batch begins
	for {
		l.mu.Lock()
		batch := slices.Clone(l.refused.since(&refused))
		refusal, flow := l.refused.changed, (chan struct{})(nil)
		if all {
			batch, flow = append(batch, l.allowed.since(&allowed)...), l.allowed.changed
		}
		l.mu.Unlock()
		slices.SortStableFunc(batch, func(a, b banger.Decision) int { return a.Time.Compare(b.Time) })
		if tail >= 0 {
			batch, tail = batch[max(len(batch)-tail, 0):], -1
		}
		for _, n := range batch {
			if err := enc.Encode(n); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		select {
		case <-refusal:
		case <-flow:
		case <-ended:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// Save stores what is kept for readers after the VM has ended.
func (l *Log) Save(path string) error {
	f, err := untrusted.Create(path, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(l.Write(context.Background(), nil, true, -1, false, f), f.Close())
}
