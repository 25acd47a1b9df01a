package shim

import (
	"context"
	"sync"
	"time"

	"banger"
	"banger/internal/guest"
)

// How long the name of a process may take: while its refusal waits for it, and else.
const (
	blameWait = 200 * time.Millisecond
	blameTime = 2 * time.Second
)

// blame finds out which process of the guest was refused something, before it is
// noted. One question is asked at a time; what comes meanwhile is noted without an
// answer, so that a flood costs nothing.
type blame struct {
	agent   guest.Client
	denials *denials
	asking  chan struct{} // has room for one
	wg      sync.WaitGroup
}

func newBlame(agent guest.Client, d *denials) *blame {
	return &blame{agent: agent, denials: d, asking: make(chan struct{}, 1)}
}

// refuse notes a denial before the guest is told. A process that connects by TCP is
// still there while it waits for that; others do not wait.
func (b *blame) refuse(d banger.Denial) { b.noteWithin(d, d.Protocol == "tcp") }

// note notes a denial of which the guest was told already.
func (b *blame) note(d banger.Denial) { b.noteWithin(d, false) }

func (b *blame) noteWithin(d banger.Denial, wait bool) {
	if b.denials.repeats(d) {
		return
	}
	if d.Source == 0 {
		b.denials.add(d)
		return
	}
	select {
	case b.asking <- struct{}{}:
	default:
		b.denials.add(d)
		return
	}
	if wait {
		b.ask(d, blameWait)
		return
	}
	b.wg.Go(func() { b.ask(d, blameTime) })
}

func (b *blame) ask(d banger.Denial, limit time.Duration) {
	defer func() { <-b.asking }()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	protocol := d.Protocol
	if protocol == "dns" {
		protocol = "udp"
	}
	if o, err := b.agent.Owner(ctx, protocol, d.Source); err == nil && o.PID > 0 {
		d.Process, d.PID = o.Process, o.PID
	}
	b.denials.add(d)
}
