package network

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Protocol is the protocol of a flow or of a rule.
type Protocol string

// The protocols that guests may use.
const (
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	ICMP Protocol = "icmp"
)

// Protocols returns the protocols that guests may use, in order of their numbers.
func Protocols() []Protocol { return []Protocol{ICMP, TCP, UDP} }

// Number returns the protocol's number in IP (RFC 792, 9293, 768), or 0 if guests may not use it.
func (p Protocol) Number() uint8 {
	switch p {
	case ICMP:
		return unix.IPPROTO_ICMP
	case TCP:
		return unix.IPPROTO_TCP
	case UDP:
		return unix.IPPROTO_UDP
	}
	return 0
}

// The protocols of flows that the host began, by a forward.
const (
	ForwardedTCP Protocol = "forwarded tcp"
	ForwardedUDP Protocol = "forwarded udp"
)

// Bounds of one VM's flows. A guest at a bound gets its new flow refused; its old
// ones and other VMs go on.
const (
	maxTCPFlows  = 2048
	maxUDPFlows  = 1024
	maxEchoFlows = 64
	udpIdle      = 120 * time.Second // RFC 4787, REQ-5: at least two minutes
	echoIdle     = 15 * time.Second
)

// limits are the bounds of each protocol's flows.
var limits = map[Protocol]int{
	TCP:          maxTCPFlows,
	ForwardedTCP: maxTCPFlows,
	UDP:          maxUDPFlows,
	ForwardedUDP: maxUDPFlows,
	ICMP:         maxEchoFlows,
}

// FlowKey identifies a flow.
type FlowKey struct {
	Protocol    Protocol
	Source      uint16         // the guest's port, or the identifier of its echo requests
	Destination netip.AddrPort // the port is 0 for ICMP
}

// Port returns the guest's port, or 0 for a protocol without ports.
func (k FlowKey) Port() uint16 {
	if k.Protocol == TCP || k.Protocol == UDP {
		return k.Source
	}
	return 0
}

// Flow is one conversation of the guest with another host.
type Flow struct {
	FlowKey
	Names []string     // names for which the guest had got the destination's address when the flow began
	End   func()       // closes the flow's socket, after which its owner removes it from its Flows; may be called twice
	Send  func([]byte) // sends one datagram to the host's side; nil for TCP
	used  atomic.Int64 // when the flow last carried something, in Unix nanoseconds
	over  chan struct{}
}

// Touch notes that the flow carries something now.
func (f *Flow) Touch() { f.used.Store(time.Now().UnixNano()) }

// Flows holds the flows of one VM, within bounds. The zero value is ready. Its methods
// may be called concurrently.
type Flows struct {
	mu     sync.Mutex
	all    map[FlowKey]*Flow
	count  map[Protocol]int
	closed bool
}

// Add registers f and reports whether there was room. When a datagram protocol is at its
// bound, Add ends the flow that has been idle longest.
func (t *Flows) Add(f *Flow) bool {
	f.Touch()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.all[f.FlowKey] != nil {
		return false
	}
	if t.count[f.Protocol] >= limits[f.Protocol] {
		if f.Protocol == TCP || f.Protocol == ForwardedTCP {
			return false
		}
		t.evict(f.Protocol)
	}
	if t.all == nil {
		t.all, t.count = map[FlowKey]*Flow{}, map[Protocol]int{}
	}
	t.all[f.FlowKey] = f
	t.count[f.Protocol]++
	return true
}

func (t *Flows) evict(p Protocol) {
	var oldest *Flow
	for _, f := range t.all {
		if f.Protocol == p && (oldest == nil || f.used.Load() < oldest.used.Load()) {
			oldest = f
		}
	}
	t.drop(oldest)
}

// drop forgets f and ends it. The caller holds t.mu.
func (t *Flows) drop(f *Flow) {
	if t.all[f.FlowKey] == f {
		delete(t.all, f.FlowKey)
		t.count[f.Protocol]--
	}
	f.End()
}

// Remove forgets f and ends it.
func (t *Flows) Remove(f *Flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(f)
}

// Get returns the flow with the key, or nil.
func (t *Flows) Get(k FlowKey) *Flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all[k]
}

// Count returns how many flows of the protocol there are.
func (t *Flows) Count(p Protocol) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count[p]
}

// SetEnd replaces what ends f, and reports whether f is still registered. If it is not,
// nothing calls end.
func (t *Flows) SetEnd(f *Flow, end func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.End = end
	return t.all[f.FlowKey] == f
}

// CloseIf ends the flows of which bad returns true.
func (t *Flows) CloseIf(bad func(*Flow) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.all {
		if bad(f) {
			t.drop(f)
		}
	}
}

// CloseAll ends all flows. Add refuses flows from then on.
func (t *Flows) CloseAll() {
	t.CloseIf(func(*Flow) bool { return true })
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

// Expire ends flows of datagrams that have been idle for too long, until ctx ends. Each time that
// it looks for such flows, it also calls also with the time.
func (t *Flows) Expire(ctx context.Context, also func(time.Time)) {
	tick := time.NewTicker(echoIdle / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			t.CloseIf(func(f *Flow) bool {
				idle := now.Sub(time.Unix(0, f.used.Load()))
				datagrams := f.Protocol == UDP || f.Protocol == ForwardedUDP
				return datagrams && idle > udpIdle || f.Protocol == ICMP && idle > echoIdle
			})
			also(now)
		}
	}
}
