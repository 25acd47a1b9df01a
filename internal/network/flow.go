package network

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Protocol is one of a flow or a rule.
type Protocol string

// The protocols that guests may use.
const (
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	ICMP Protocol = "icmp"

	// What the host has begun, by a forward.
	forwarded    Protocol = "forwarded tcp"
	forwardedUDP Protocol = "forwarded udp"
)

// flowKey tells flows apart: the guest's port, or the identifier of its echo
// requests, and where it goes.
type flowKey struct {
	proto Protocol
	src   uint16
	dst   netip.AddrPort
}

// flow is one conversation of the guest with somebody outside.
type flow struct {
	flowKey
	names []string     // what the guest had asked for when it got the address
	used  atomic.Int64 // when it last carried something, in Unix nanoseconds
	end   func()       // closes the flow's socket, after which its owner forgets it; may be called twice
	send  func([]byte) // UDP, ICMP: one datagram to the host's side
	// failed tells the guest what the network has told of a datagram; nil tells nothing.
	failed func(error)
	over   chan struct{} // of a forward of UDP: closed when the flow has ended
}

// source is the guest's port, 0 for what has none.
func (f *flow) source() uint16 {
	if f.proto == TCP || f.proto == UDP {
		return f.src
	}
	return 0
}

// tell tells the guest of an error of the flow's socket, if it is one about an earlier datagram,
// and reports whether it was. The socket works on.
func (f *flow) tell(err error) bool {
	errno, ok := errors.AsType[unix.Errno](err)
	if _, known := closedCodes[errno]; !ok || !known || f.failed == nil {
		return false
	}
	f.failed(err)
	return true
}

func (f *flow) touch() { f.used.Store(time.Now().UnixNano()) }

// flows are all of one stack.
type flows struct {
	mu     sync.Mutex
	all    map[flowKey]*flow
	count  map[Protocol]int
	closed bool
}

// limits are the bounds of each protocol's flows.
var limits = map[Protocol]int{TCP: maxTCPFlows, forwarded: maxTCPFlows, UDP: maxUDPFlows, forwardedUDP: maxUDPFlows, ICMP: maxEchoFlows}

// add registers f and reports whether there was room. The flow of a datagram
// protocol that has been idle longest makes room for a new one.
func (t *flows) add(f *flow) bool {
	f.touch()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.all[f.flowKey] != nil {
		return false
	}
	if t.count[f.proto] >= limits[f.proto] {
		if f.proto == TCP || f.proto == forwarded {
			return false
		}
		t.evict(f.proto)
	}
	if t.all == nil {
		t.all, t.count = map[flowKey]*flow{}, map[Protocol]int{}
	}
	t.all[f.flowKey] = f
	t.count[f.proto]++
	return true
}

func (t *flows) evict(p Protocol) {
	var oldest *flow
	for _, f := range t.all {
		if f.proto == p && (oldest == nil || f.used.Load() < oldest.used.Load()) {
			oldest = f
		}
	}
	t.drop(oldest)
}

// drop forgets f and closes it; t.mu is held.
func (t *flows) drop(f *flow) {
	if t.all[f.flowKey] == f {
		delete(t.all, f.flowKey)
		t.count[f.proto]--
	}
	f.end()
}

func (t *flows) remove(f *flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(f)
}

func (t *flows) get(k flowKey) *flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all[k]
}

func (t *flows) number(p Protocol) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count[p]
}

func (t *flows) closeIf(bad func(*flow) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.all {
		if bad(f) {
			t.drop(f)
		}
	}
}

func (t *flows) closeAll() {
	t.closeIf(func(*flow) bool { return true })
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

// expire ends datagram flows that carry nothing any more, and calls also as often.
func (g *Gate) expire(also func(time.Time)) {
	tick := time.NewTicker(echoIdle / 3)
	defer tick.Stop()
	for {
		select {
		case <-g.ctx.Done():
			return
		case now := <-tick.C:
			g.flows.closeIf(func(f *flow) bool {
				idle := now.Sub(time.Unix(0, f.used.Load()))
				return (f.proto == UDP || f.proto == forwardedUDP) && idle > udpIdle || f.proto == ICMP && idle > echoIdle
			})
			also(now)
		}
	}
}
