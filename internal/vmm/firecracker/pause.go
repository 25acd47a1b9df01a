package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"sync"
)

// pausing serialises pauses, resumes and snapshots. Its zero value is not usable.
type pausing struct {
	turn    chan struct{} // has capacity for the one caller whose turn it is
	stopped bool          // the process is stopped by a signal, and its API does not answer
	reset   bool          // since the last resume, the guest was sent the event that ends its streams
}

func newPausing() pausing { return pausing{turn: make(chan struct{}, 1)} }

// take waits for the caller's turn. The caller ends its turn with leave.
func (p *pausing) take(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for what is asked of the VM already: %w", ctx.Err())
	}
}

func (p *pausing) leave() { <-p.turn }

// Pause stops the guest's CPUs. It stops the whole process by a signal if the API's pause would
// break the vsock (version.losesVsock).
func (p *process) Pause(ctx context.Context) error {
	if err := p.pausing.take(ctx); err != nil {
		return err
	}
	defer p.pausing.leave()
	if !p.version.losesVsock() {
		if err := p.setState(ctx, vmPaused); err != nil {
			return err
		}
	} else if err := p.Stop(ctx); err != nil {
		return p.endOr(err)
	} else {
		p.pausing.stopped = true
	}
	p.paused.Store(true)
	return nil
}

// Resume lets the guest's CPUs run again.
func (p *process) Resume(ctx context.Context) error {
	if err := p.pausing.take(ctx); err != nil {
		return err
	}
	defer p.pausing.leave()
	var err error
	if p.version.losesVsock() {
		err = p.goOn(ctx)
	} else {
		err = p.setState(ctx, vmResumed)
	}
	if err == nil {
		p.paused.Store(false)
	}
	return err
}

// goOn resumes a guest of a version whose API resume blocks the vsock towards the guest until the
// guest has seen a reset event. Without an event the vsock is blocked for ever. A snapshot sends
// that event first of all. If no snapshot was taken, goOn asks for one that must fail, which sends
// the event too.
func (p *process) goOn(ctx context.Context) error {
	if err := p.Continue(); err != nil {
		return err
	}
	p.pausing.stopped = false
	var info InstanceInfo
	if err := p.api.call(ctx, http.MethodGet, "/", nil, &info); err != nil {
		return p.endOr(err)
	}
	if info.State != statePaused {
		return nil
	}
	if !p.pausing.reset {
		if err := p.sendReset(ctx); err != nil {
			return err
		}
	}
	err := p.setState(ctx, vmResumed)
	if err == nil {
		p.pausing.reset = false
	}
	return err
}

// sendReset makes the devices of a paused VM prepare for a snapshot without writing a file: it asks
// for a snapshot into a path that is a directory, which fails.
func (p *process) sendReset(ctx context.Context) error {
	none := SnapshotCreateParams{SnapshotType: snapshotFull, SnapshotPath: "/", MemFilePath: "/"}
	err := p.api.call(ctx, http.MethodPut, "/snapshot/create", none, nil)
	var refused *fault
	if err != nil && !errors.As(err, &refused) {
		return p.endOr(err)
	}
	p.pausing.reset = true
	return nil
}

// pauseByAPI turns a stop by a signal into a pause by the API. It writes the request before it
// continues the process, so the guest runs only until Firecracker has read the request. If
// pauseByAPI fails, the process is still stopped.
func (p *process) pauseByAPI(ctx context.Context) error {
	if !p.pausing.stopped {
		return nil
	}
	var once sync.Once
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(w httptrace.WroteRequestInfo) {
		if w.Err == nil {
			once.Do(func() { p.Continue() }) // if that fails, no answer comes
		}
	}})
	err := p.setState(traced, vmPaused)
	once.Do(func() {}) // a request that is written later must not continue the process
	if err != nil {
		again, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		p.Stop(again) // if that fails, the process has ended, and endOr says so
		return p.endOr(err)
	}
	p.pausing.stopped = false
	return nil
}

func (p *process) setState(ctx context.Context, state string) error {
	return p.api.call(ctx, http.MethodPatch, "/vm", VM{State: state}, nil)
}
