package decision

import (
	"context"
	"sync"
	"time"

	"banger"
	"banger/internal/guest"
)

// Maximum time to find the name of a process: while its refusal waits for the name, otherwise for a refusal, and for a
// flow that was allowed, from its beginning on.
const (
	refusalWait = 200 * time.Millisecond
	refusalTime = 2 * time.Second
	flowTime    = 2 * time.Second
)

// Bounds of the questions about flows that were allowed, which a guest may begin by the thousand.
const (
	maxFlows = 16                    // flows that wait for their question
	flowRest = 50 * time.Millisecond // between an answer and the next question
)

// Attribution finds the process of the guest that was refused or allowed something, before the decision is recorded. It
// asks one question about a refusal and one about a flow at a time. Decisions for which there is no room are recorded
// without a process, so a flood costs little, and flows do not take the place of refusals.
type Attribution struct {
	agent   guest.Client
	log     *Log
	refusal chan struct{} // has room for the question about a refusal
	flow    chan struct{} // has room for the question about a flow
	flows   chan struct{} // has room for the flows that wait for that
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// NewAttribution returns an Attribution that records in l and asks agent, until Close.
func NewAttribution(agent guest.Client, l *Log) *Attribution {
	a := &Attribution{agent: agent, log: l, refusal: make(chan struct{}, 1), flow: make(chan struct{}, 1),
		flows: make(chan struct{}, maxFlows)}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// Decide records a decision. It is called before the guest gets a refusal: a TCP client still exists while it waits for
// that. Other decisions do not wait for the name of the process.
func (a *Attribution) Decide(d banger.Decision) {
	if d.Allowed {
		a.allow(d)
	} else {
		a.refuse(d, d.Protocol == "tcp")
	}
}

// Note records a refusal after the guest got it.
func (a *Attribution) Note(d banger.Decision) { a.refuse(d, false) }

func (a *Attribution) refuse(d banger.Decision, wait bool) {
	if a.log.repeats(d) {
		return
	}
	if d.Source == 0 || !take(a.refusal) {
		a.log.Add(d)
		return
	}
	ask := func(limit time.Duration) {
		defer func() { <-a.refusal }()
		a.log.Add(a.attributed(d, time.Now().Add(limit)))
	}
	if wait {
		ask(refusalWait)
		return
	}
	a.wg.Go(func() { ask(refusalTime) })
}

// allow records a flow that was allowed, and never waits.
func (a *Attribution) allow(d banger.Decision) {
	if a.log.repeats(d) {
		return
	}
	if d.Source == 0 || !take(a.flows) {
		a.log.Add(d)
		return
	}
	a.wg.Go(func() {
		defer func() { <-a.flows }()
		select {
		case a.flow <- struct{}{}:
			defer func() { <-a.flow }()
		case <-time.After(time.Until(d.Time.Add(flowTime))):
			a.log.Add(d)
			return
		case <-a.ctx.Done():
			a.log.Add(d)
			return
		}
		if a.log.repeats(d) { // others like this one have waited too
			return
		}
		a.log.Add(a.attributed(d, d.Time.Add(flowTime)))
		select {
		case <-time.After(flowRest):
		case <-a.ctx.Done():
		}
	})
}

// take takes a place and reports whether one was free.
func take(places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
		return false
	}
}

// attributed returns d with the process that the agent names in time, if it does.
func (a *Attribution) attributed(d banger.Decision, until time.Time) banger.Decision {
	ctx, cancel := context.WithDeadline(a.ctx, until)
	defer cancel()
	protocol := d.Protocol
	if protocol == "dns" {
		protocol = "udp"
	}
	if o, err := a.agent.Owner(ctx, protocol, d.Source); err == nil && o.PID > 0 {
		d.Process, d.PID = o.Process, o.PID
	}
	return d
}

// Close records what still waits, without asking any more, and returns when that is done.
func (a *Attribution) Close() {
	a.cancel()
	a.wg.Wait()
}
