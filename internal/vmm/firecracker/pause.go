package firecracker

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"sync"
)

// pausing serialises what changes whether the guest runs. Its zero value is not ready.
type pausing struct {
	turn    chan struct{} // has room for the one whose turn it is
	stopped bool          // the process is stopped by a signal, and its API does not answer
	reset   bool          // since the last resume the guest was sent the event that ends its streams
}

func newPausing() pausing { return pausing{turn: make(chan struct{}, 1)} }

// take waits for the caller's turn, which ends with leave.
func (p *pausing) take(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pausing) leave() { <-p.turn }

// Pause stops the guest's CPUs: all of the process, where the API's own pause would cost the
// vsock (version.losesVsock).
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
		err = p.proceed(ctx)
	} else {
		err = p.setState(ctx, vmResumed)
	}
	if err == nil {
		p.paused.Store(false)
	}
	return err
}

// proceed is Resume where the API's own resume closes the vsock to the host until the guest
// has seen an event: it is closed for ever if there is none. A snapshot sends one first of
// all, so one that must fail does it, too, where there was no other.
func (p *process) proceed(ctx context.Context) error {
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

// sendReset has the devices of a paused VM prepare for a snapshot, for which no file is made:
// a directory cannot be written to.
func (p *process) sendReset(ctx context.Context) error {
	none := SnapshotCreateParams{SnapshotType: snapshotFull, SnapshotPath: p.config.Dir, MemFilePath: p.config.Dir}
	err := p.api.call(ctx, http.MethodPut, "/snapshot/create", none, nil)
	var refused *fault
	if err != nil && !errors.As(err, &refused) {
		return p.endOr(err)
	}
	p.pausing.reset = true
	return nil
}

// pauseByAPI turns a stop by a signal into a pause that Firecracker knows of. The request is
// there before the process goes on, so the guest runs no longer than that takes to be read. A
// failure leaves the process stopped.
func (p *process) pauseByAPI(ctx context.Context) error {
	if !p.pausing.stopped {
		return nil
	}
	var goOn sync.Once
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(w httptrace.WroteRequestInfo) {
		if w.Err == nil {
			goOn.Do(func() { p.Continue() }) // where that fails, no answer comes
		}
	}})
	err := p.setState(traced, vmPaused)
	goOn.Do(func() {}) // a request that is written late continues nothing
	if err != nil {
		again, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		p.Stop(again) // where that fails, the process has ended, which endOr tells
		return p.endOr(err)
	}
	p.pausing.stopped = false
	return nil
}

func (p *process) setState(ctx context.Context, state string) error {
	return p.api.call(ctx, http.MethodPatch, "/vm", VM{State: state}, nil)
}
