// Package feed keeps the latest changes of something, so that a reader that comes back later can go on where it was. It
// must not know what changes.
package feed

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"strings"
	"sync"
)

// Feed holds the latest changes. A reader names its place with a cursor. Readers cost nothing while they do not read: a
// slow one loses its place, and has to read the whole state again.
type Feed[T any] struct {
	epoch string // differs after each start, because changes do not survive one

	mu    sync.Mutex
	ring  []T
	next  uint64        // number of changes so far; the last len(ring) of them are kept
	fresh chan struct{} // closed and replaced at each change
}

// New returns a Feed that keeps the latest size changes.
func New[T any](size int) *Feed[T] {
	var epoch [6]byte
	rand.Read(epoch[:])
	return &Feed[T]{epoch: hex.EncodeToString(epoch[:]), ring: make([]T, size), fresh: make(chan struct{})}
}

// Publish adds a change and wakes all readers. It does not wait for them.
func (f *Feed[T]) Publish(change T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ring[f.next%uint64(len(f.ring))] = change
	f.next++
	close(f.fresh)
	f.fresh = make(chan struct{})
}

// Now returns the cursor behind the latest change.
func (f *Feed[T]) Now() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cursor(f.next)
}

func (f *Feed[T]) cursor(n uint64) string { return f.epoch + "-" + strconv.FormatUint(n, 10) }

// After returns the changes behind a cursor, the cursor behind each of them, and a channel that is closed at the next
// change. ok is false if the cursor is not of this feed, or if changes behind it are no longer kept. The reader must
// then read the whole state, which it does after it has got a cursor from Now.
func (f *Feed[T]) After(cursor string) (changes []T, cursors []string, fresh <-chan struct{}, ok bool) {
	epoch, number, _ := strings.Cut(cursor, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil || epoch != f.epoch || n > f.next || f.next-n > uint64(len(f.ring)) {
		return nil, nil, f.fresh, false
	}
	for ; n < f.next; n++ {
		changes = append(changes, f.ring[n%uint64(len(f.ring))])
		cursors = append(cursors, f.cursor(n+1))
	}
	return changes, cursors, f.fresh, true
}

// Follow calls emit with the changes behind the cursor since, and with the cursor of each. If since is empty, or
// changes behind it are no longer kept, it first emits what state returns. It returns nil when ctx or stop ends, and
// the error of emit. If ctx has ended before, Follow still emits the changes up to now.
func (f *Feed[T]) Follow(ctx context.Context, stop <-chan struct{}, since string, state func() T,
	emit func(change T, cursor string) error) error {
	for {
		changes, cursors, fresh, ok := f.After(since)
		if !ok {
			since = f.Now() // before the state, so that no change is missed
			if err := emit(state(), since); err != nil {
				return err
			}
			continue
		}
		for i, c := range changes {
			if err := emit(c, cursors[i]); err != nil {
				return err
			}
			since = cursors[i]
		}
		if len(changes) > 0 {
			continue
		}
		select {
		case <-fresh:
		case <-ctx.Done():
			return nil
		case <-stop:
			return nil
		}
	}
}
