package server

import (
	"context"
	"sync"
	"time"

	"banger"
	"banger/internal/guest"
)

// How long the name of a process may take: while its refusal waits for it, and else.
const (
	attributionWait = 200 * time.Millisecond
	attributionTime = 2 * time.Second
)

// attribution finds out which process of the guest was refused something, before it is
// noted. One question is asked at a time; what comes meanwhile is noted without an
// answer, so that a flood costs nothing.
type attribution struct {
	agent   guest.Client
	denials *denials
	asking  chan struct{} // has room for one
	wg      sync.WaitGroup
}

func newAttribution(agent guest.Client, d *denials) *attribution {
	return &attribution{agent: agent, denials: d, asking: make(chan struct{}, 1)}
}

// refuse notes a denial before the guest is told. A process that connects by TCP is
// still there while it waits for that; others do not wait.
func (a *attribution) refuse(d banger.Denial) { a.noteWithin(d, d.Protocol == "tcp") }

// note notes a denial of which the guest was told already.
func (a *attribution) note(d banger.Denial) { a.noteWithin(d, false) }

func (a *attribution) noteWithin(d banger.Denial, wait bool) {
	if a.denials.repeats(d) {
		return
	}
	if d.Source == 0 {
		a.denials.add(d)
		return
	}
	select {
	case a.asking <- struct{}{}:
	default:
		a.denials.add(d)
		return
	}
	if wait {
		a.ask(d, attributionWait)
		return
	}
	a.wg.Go(func() { a.ask(d, attributionTime) })
}

func (a *attribution) ask(d banger.Denial, limit time.Duration) {
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
	a.denials.add(d)
}
