package shim

import (
	"context"
	"strings"
	"sync"
	"time"
	"unicode"

	"banger"
	"banger/internal/guest"
)

// blameTime is how long a refusal waits for the name of the process at most.
const blameTime = 200 * time.Millisecond

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

// note notes a denial. A process that connects by TCP is still there while it waits
// for the refusal, so that comes after the answer; others do not wait.
func (b *blame) note(d banger.Denial) {
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
	if d.Protocol == "tcp" {
		b.ask(d)
		return
	}
	b.wg.Go(func() { b.ask(d) })
}

func (b *blame) ask(d banger.Denial) {
	defer func() { <-b.asking }()
	ctx, cancel := context.WithTimeout(context.Background(), blameTime)
	defer cancel()
	protocol := d.Protocol
	if protocol == "dns" {
		protocol = "udp"
	}
	if o, err := b.agent.Owner(ctx, protocol, d.Source); err == nil && o.PID > 0 {
		d.Process, d.PID = printable(o.Process), o.PID
	}
	b.denials.add(d)
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
