package server

import (
	"context"
	"encoding/json"
	"net"
	"testing"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/vmm"
)

// answering is a VMM that sends the agent's streams to the test.
type answering struct {
	vmm.Process
	streams chan net.Conn
}

func (a answering) Dial(context.Context, uint32) (net.Conn, error) {
	ours, theirs := net.Pipe()
	a.streams <- theirs
	return ours, nil
}

func (a answering) Resume(context.Context) error { return nil }

// next answers the next request of the agent, and returns it.
func (a answering) next(t *testing.T, typ frame.Type, answer any) (r guest.Request) {
	t.Helper()
	select {
	case conn := <-a.streams:
		defer conn.Close()
		_, p, err := frame.NewReader(conn).Next()
		check(t, err)
		check(t, json.Unmarshal(p, &r))
		check(t, frame.WriteJSON(conn, typ, answer))
	case <-time.After(10 * time.Second):
		t.Fatal("the agent is asked nothing")
	}
	return r
}

// behind returns the answer of an agent whose clock is an hour behind.
func behind() guest.Info { return guest.Info{TimeUnixNano: time.Now().Add(-time.Hour).UnixNano()} }

// TestTheClockIsKept checks that the guest's clock is compared each minute, and set after the VM was resumed.
func TestTheClockIsKept(t *testing.T) {
	a := answering{streams: make(chan net.Conn, 1)}
	s := &server{proc: a, resumed: make(chan struct{}, 1)}
	tick := make(chan time.Time)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { s.keepClock(ctx, tick); close(ended) }()
	for name, tt := range map[string]struct {
		wake func()
		now  bool
	}{
		"each minute":       {func() { tick <- time.Now() }, false},
		"when it goes on":   {func() { check(t, s.resume(ctx)) }, true},
		"at the boot's end": {func() { go s.syncClock(ctx, true) }, true},
	} {
		tt.wake()
		r := a.next(t, frame.Response, behind())
		for r.Op == guest.OpClock && r.Clock == nil { // the shim asks again if an answer took long
			r = a.next(t, frame.Response, behind())
		}
		if r.Op != guest.OpClock || r.Clock.Now != tt.now || (r.Clock.Offset()-time.Hour).Abs() > time.Second {
			t.Errorf("%s the agent is asked %+v %+v", name, r, r.Clock)
		}
	}
	cancel()
	<-ended
}

// TestASilentAgentCostsOneStream: ticks during a call are lost, and the stream ends with the call.
func TestASilentAgentCostsOneStream(t *testing.T) {
	a := answering{streams: make(chan net.Conn, 2)}
	s := &server{proc: a, resumed: make(chan struct{}, 1)}
	tick := make(chan time.Time, 1) // like the channel of a time.Ticker
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { s.keepClock(ctx, tick); close(ended) }()
	tick <- time.Now()
	conn := <-a.streams
	tick <- time.Now()
	for range 3 {
		check(t, s.resume(ctx)) // does not wait for the agent
	}
	if len(a.streams) != 0 {
		t.Error("a second stream is opened beside the first")
	}
	cancel()
	<-ended
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for frames := frame.NewReader(conn); ; {
		if _, _, err := frames.Next(); err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Error("the stream stays")
			}
			break
		}
	}
}

// TestAnOldAgentIsLeftAlone: an agent that does not know the operation is asked only once.
func TestAnOldAgentIsLeftAlone(t *testing.T) {
	a := answering{streams: make(chan net.Conn, 1)}
	s := &server{proc: a, resumed: make(chan struct{}, 1)}
	tick, ended := make(chan time.Time), make(chan struct{})
	go func() { s.keepClock(t.Context(), tick); close(ended) }()
	tick <- time.Now()
	a.next(t, frame.Error, &banger.Error{Code: banger.CodeInvalid, Message: "the agent knows no operation"})
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("it is asked again")
	}
}
