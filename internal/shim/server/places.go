package server

import "banger/internal/shim"

// Bounds for what is open at the same time. Those that lead to the agent, with the connections of package inlet,
// together fit into one session with it, which has 1024 streams. Calls have places of their own, so streams to a silent
// agent cannot prevent that a policy is tightened.
const (
	// maxFresh is for connections that have not sent a call yet. They must do so within shim.CallTime.
	maxFresh    = 1024
	maxCalls    = 128 // control calls
	maxRequests = 128 // CONNECT, by which the daemon makes requests to the agent
	maxStreams  = 512 // OFFER, for clients' commands and copies
	maxFollows  = 128 // CONSOLE, OUTPUT and DENIALS, which do not use the agent
)

// places bounds what is open at the same time. Each channel holds a token for each place that is taken.
type places struct {
	fresh, calls, requests, streams, follows chan struct{}
}

func newPlaces() places {
	return places{make(chan struct{}, maxFresh), make(chan struct{}, maxCalls), make(chan struct{}, maxRequests),
		make(chan struct{}, maxStreams), make(chan struct{}, maxFollows)}
}

// of returns the channel for the places of a call.
func (p places) of(call string) chan struct{} {
	switch call {
	case shim.CallConnect:
		return p.requests
	case shim.CallOffer, shim.CallMain:
		return p.streams
	case shim.CallConsole, shim.CallDecisions, shim.CallOutput:
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
