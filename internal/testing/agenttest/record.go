package agenttest

import (
	"context"
	"strings"
	"sync"
	"testing"

	"banger/internal/frame"
	"banger/internal/guest"
)

// Recorded is what an agent's main command has written so far.
type Recorded struct {
	Ended chan error // gets the result of Output
	// Stop breaks the connection, and returns the position behind the last record that came.
	Stop func() uint64

	mu             sync.Mutex
	stdout, stderr []byte
	position       uint64
}

// Record gets the output of the main command from a position on, until it or the test ends.
func (a *Agent) Record(t testing.TB, position uint64) *Recorded {
	t.Helper()
	r := &Recorded{Ended: make(chan error, 1), position: position}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Ended <- a.Output(ctx, position, r.take)
	}()
	r.Stop = func() uint64 {
		cancel()
		<-done
		return r.Position()
	}
	t.Cleanup(func() { r.Stop() })
	return r
}

func (r *Recorded) take(record guest.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if record.Stream == frame.Stderr {
		r.stderr = append(r.stderr, record.Data...)
	} else {
		r.stdout = append(r.stdout, record.Data...)
	}
	r.position = record.Position + uint64(len(record.Data))
}

// Stdout returns what came to the standard output.
func (r *Recorded) Stdout() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.stdout)
}

// Stderr returns what came to the standard error.
func (r *Recorded) Stderr() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.stderr)
}

// Position returns the position behind the last record.
func (r *Recorded) Position() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.position
}

// Until returns when the standard output has a text.
func (r *Recorded) Until(t testing.TB, text string) {
	t.Helper()
	Await(t, "the main command writes "+text, func() bool { return strings.Contains(r.Stdout(), text) })
}
