package firecracker

import (
	"context"
	"errors"
	"fmt"
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
		return fmt.Errorf("waiting for what is asked of the VM already: %w", ctx.Err())
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
		err = p.goOn(ctx)
	} else {
		err = p.setState(ctx, vmResumed)
	}
	if err == nil {
		p.paused.Store(false)
	}
	return err
}

// goOn is Resume where the API's own resume closes the vsock to the host until the guest has
// seen an event: it is closed for ever if there is none. A snapshot first of all sends one. Where
// none was taken, one that must fail is asked for, and sends it, too.
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

// sendReset has the devices of a paused VM prepare for a snapshot, for which no file is made:
// a directory cannot be written to.
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

// pauseByAPI turns a stop by a signal into a pause that Firecracker knows of. The request is
// written before the process is continued, so the guest runs no longer than Firecracker takes
// to read it. A failure leaves the process stopped.
func (p *process) pauseByAPI(ctx context.Context) error {
	if !p.pausing.stopped {
		return nil
	}
	var once sync.Once
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(w httptrace.WroteRequestInfo) {
		if w.Err == nil {
			once.Do(func() { p.Continue() }) // where that fails, no answer comes
		}
	}})
	err := p.setState(traced, vmPaused)
	once.Do(func() {}) // a request that is written late continues nothing
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
