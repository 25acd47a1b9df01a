package server

import "banger/internal/shim"

// Bounds of what is open at once. Together those that lead to the agent fit into one session
// with it, which has 1024 streams. Calls have places of their own, so that streams of a silent
// agent cannot keep a policy from being tightened.
const (
	maxFresh    = 1024 // connections that have not said what they are, for which they have shim.CallTime
	maxCalls    = 128  // control calls
	maxRequests = 128  // CONNECT, by which the daemon asks the agent
	maxStreams  = 512  // OFFER, for clients' commands and copies
	maxFollows  = 128  // CONSOLE and DENIALS, which do not lead to the agent
	maxLocal    = 256  // forwards to the guest's loopback
)

// places bound what is open at once. Each channel has a token for each place that is taken.
type places struct {
	fresh, calls, requests, streams, follows chan struct{}
}

func newPlaces() places {
	return places{make(chan struct{}, maxFresh), make(chan struct{}, maxCalls), make(chan struct{}, maxRequests),
		make(chan struct{}, maxStreams), make(chan struct{}, maxFollows)}
}

// of returns where a call has its place.
func (p places) of(call string) chan struct{} {
	switch call {
	case shim.CallConnect:
		return p.requests
	case shim.CallOffer:
		return p.streams
	case shim.CallConsole, shim.CallDenials:
		return p.follows
	}
	return p.calls
}

// take takes a place and reports whether one was free.
func take(p chan struct{}) bool {
	select {
	case p <- struct{}{}:
		return true
	default:
		return false
	}
}
