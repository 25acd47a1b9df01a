package denial

import (
	"context"
	"sync"
	"time"

	"banger"
	"banger/internal/guest"
)

// Maximum time to find the name of a process: while its refusal waits for the name, and otherwise.
const (
	attributionWait = 200 * time.Millisecond
	attributionTime = 2 * time.Second
)

// Attribution finds the process of the guest that was refused something, before the denial is recorded. It asks one
// question at a time. Denials that arrive meanwhile are recorded without a process, so a flood costs little.
type Attribution struct {
	agent   guest.Client
	denials *Log
	asking  chan struct{} // has room for one value
	wg      sync.WaitGroup
}

// NewAttribution returns an Attribution that records in d and asks agent.
func NewAttribution(agent guest.Client, d *Log) *Attribution {
	return &Attribution{agent: agent, denials: d, asking: make(chan struct{}, 1)}
}

// Refuse records a denial before the guest gets the refusal. A TCP client still exists while it waits for that. Other
// denials do not wait for the name of the process.
func (a *Attribution) Refuse(d banger.Denial) { a.noteWithin(d, d.Protocol == "tcp") }

// Note records a denial after the guest got the refusal.
func (a *Attribution) Note(d banger.Denial) { a.noteWithin(d, false) }

func (a *Attribution) noteWithin(d banger.Denial, wait bool) {
	if a.denials.repeats(d) {
		return
	}
	if d.Source == 0 {
		a.denials.Add(d)
		return
	}
	select {
	case a.asking <- struct{}{}:
	default:
		a.denials.Add(d)
		return
	}
	if wait {
		a.ask(d, attributionWait)
		return
	}
	a.wg.Go(func() { a.ask(d, attributionTime) })
}

func (a *Attribution) ask(d banger.Denial, limit time.Duration) {
	defer func() { <-a.asking }()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	protocol := d.Protocol
	if protocol == "dns" {
		protocol = "udp"
	}
	if o, err := a.agent.Owner(ctx, protocol, d.Source); err == nil && o.PID > 0 {
		d.Process, d.PID = o.Process, o.PID
	}
	a.denials.Add(d)
}

// Wait returns when no question is asked any more.
func (a *Attribution) Wait() { a.wg.Wait() }
