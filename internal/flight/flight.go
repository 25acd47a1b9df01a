// Package flight lets several callers wait for one piece of work, which is canceled when the last of them has left. It
// must not know what the work is.
package flight

import (
	"context"
	"sync"
)

// Group is the work that is under way, by key. Its methods may be called concurrently. The zero value has no work.
type Group[T any] struct {
	mu      sync.Mutex
	flights map[string]*Flight[T]
}

// Flight is one piece of work. Its callers share Value.
type Flight[T any] struct {
	Value T

	group   *Group[T]
	cancel  context.CancelFunc
	done    chan struct{}
	err     error // set before done is closed
	callers int   // guarded by group.mu
}

// Join adds a caller to the work called key. The caller must call Leave once. If no such work is under way, Join calls
// begin, which returns the value that the callers will share, and starts run in a goroutine. begin must not use the
// group. The work is under way until run has returned.
//
// All callers may have left work that is still under way. Nobody can join it then: Join returns it with joined false,
// and the caller may try again when its Done is closed.
func (g *Group[T]) Join(key string, begin func() (T, error),
	run func(ctx context.Context, value T) error) (f *Flight[T], joined bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f := g.flights[key]; f != nil {
		joined := f.callers > 0
		if joined {
			f.callers++
		}
		return f, joined, nil
	}
	value, err := begin()
	if err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f = &Flight[T]{Value: value, group: g, cancel: cancel, done: make(chan struct{}), callers: 1}
	if g.flights == nil {
		g.flights = map[string]*Flight[T]{}
	}
	g.flights[key] = f
	go func() { // ends when run does; the last caller's Leave cancels it
		defer cancel()
		err := run(ctx, value)
		g.mu.Lock()
		delete(g.flights, key)
		g.mu.Unlock()
		f.err = err
		close(f.done)
	}()
	return f, true, nil
}

// Get returns the work called key that is under way, or nil.
func (g *Group[T]) Get(key string) *Flight[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.flights[key]
}

// Leave removes a caller. It reports whether that was the last one. The last one cancels the work, and may wait for
// Done so that the work has ended when the caller goes on.
func (f *Flight[T]) Leave() (last bool) {
	f.group.mu.Lock()
	defer f.group.mu.Unlock()
	if f.callers--; f.callers == 0 {
		f.cancel()
	}
	return f.callers == 0
}

// Done is closed when the work has ended and is no longer under way.
func (f *Flight[T]) Done() <-chan struct{} { return f.done }

// Err returns the error with which the work ended. It may be called when Done is closed.
func (f *Flight[T]) Err() error { return f.err }
