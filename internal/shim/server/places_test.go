package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/shim"
	"banger/internal/shim/decision"
	"banger/internal/vmm"
)

// running is a running VMM whose agent never answers.
type running struct {
	vmm.Process
	done chan struct{}
}

func (r running) Done() <-chan struct{} { return r.done }
func (r running) Handle() vmm.Handle    { return vmm.Handle{} }

// silentShim serves the socket of a shim whose VM runs and whose agent never answers.
func silentShim(t *testing.T) (*server, shim.Client, net.Listener) {
	t.Helper()
	c := shim.Client{Dir: t.TempDir(), Run: t.TempDir()}
	ln, err := listenControl(filepath.Join(c.Run, shim.SocketFile))
	check(t, err)
	con, err := openConsole(shim.ConsolePath(c.Dir))
	check(t, err)
	t.Cleanup(con.close)
	rec, err := openRecorder(shim.OutputPath(c.Dir))
	check(t, err)
	t.Cleanup(rec.log.Close)
	s := &server{daemon: uint32(os.Geteuid()), places: newPlaces(), proc: running{done: make(chan struct{})}, console: con,
		recorder: rec, decisions: decision.NewLog(),
		muxNext: make(chan struct{}), settled: make(chan struct{})}
	s.wg.Go(func() { s.accept(t.Context(), ln) })
	return s, c, ln
}

// call makes a call on a new connection.
func call(t *testing.T, c shim.Client, line string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", filepath.Join(c.Run, shim.SocketFile))
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = fmt.Fprintln(conn, line)
	check(t, err)
	return conn
}

// TestNothingStaysOfClientsThatHaveGone lets clients give up on calls that are not answered.
func TestNothingStaysOfClientsThatHaveGone(t *testing.T) {
	s, c, ln := silentShim(t)
	for _, line := range []string{shim.CallConnect + " 1", shim.CallOffer + " 1", shim.CallWatch, shim.CallConsole + " 0",
		shim.CallMain + " 1", shim.CallOutput + " 0", shim.CallDecisions + " 0 true"} {
		call(t, c, line).Close()
	}
	_, err := c.Status(t.Context()) // comes after them in the queue of accept
	check(t, err)
	ln.Close()
	ended := make(chan struct{})
	go func() { s.wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Errorf("%d requests, %d streams, %d follows and %d calls stay",
			len(s.places.requests), len(s.places.streams), len(s.places.follows), len(s.places.calls))
	}
}

// TestStreamsLeaveControlCallsTheirPlaces tries to open more streams to a silent agent than are allowed.
func TestStreamsLeaveControlCallsTheirPlaces(t *testing.T) {
	_, c, ln := silentShim(t)
	defer ln.Close()
	refused := make(chan string, 3)
	for range maxStreams + 3 {
		conn := call(t, c, shim.CallOffer+" 1")
		go func() { // ends when the test closes conn
			if line, err := shim.ReadLine(conn); err == nil {
				refused <- line
			}
		}()
	}
	for range 3 {
		select {
		case line := <-refused:
			if !strings.HasPrefix(line, "ERR ") {
				t.Errorf("a stream is answered %q", line)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("streams beyond the bound are not refused")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := c.Status(ctx); err != nil {
		t.Error(err)
	}
}

// TestWhyAnAgentIsNotReachedHasACode: the code for a lack of places does not accuse the guest.
func TestWhyAnAgentIsNotReachedHasACode(t *testing.T) {
	s, c, ln := silentShim(t)
	defer ln.Close()
	reach := func(want banger.Code, text string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := c.Offer(ctx, 1); banger.CodeOf(err) != want || !strings.Contains(err.Error(), text) {
			t.Errorf("it is %v (%s)", err, banger.CodeOf(err))
		}
	}
	for range maxStreams {
		s.places.streams <- struct{}{}
	}
	reach(banger.CodeConflict, "512 streams are open already")
	for range maxStreams {
		<-s.places.streams
	}
	close(s.proc.(running).done)
	reach(banger.CodeGuest, "the VM has ended")
}

// TestEachKindOfCallHasPlacesOfItsOwn takes all places of one kind, and then makes a call of that kind and of the
// others.
func TestEachKindOfCallHasPlacesOfItsOwn(t *testing.T) {
	s, c, ln := silentShim(t)
	defer ln.Close()
	lines := map[chan struct{}]string{
		s.places.calls:   "NONSENSE",
		s.places.follows: shim.CallConsole + " x",
	}
	for full, refused := range lines {
		for range cap(full) {
			full <- struct{}{}
		}
		conn := call(t, c, refused)
		conn.SetReadDeadline(time.Now().Add(patience))
		if text, err := io.ReadAll(conn); len(text) > 0 || err != nil {
			t.Errorf("%s without a place is answered %q, %v", refused, text, err)
		}
		if other := s.places.of(shim.CallConnect); len(other) > 0 {
			t.Errorf("%s takes a place of another kind", refused)
		}
		for range cap(full) {
			<-full
		}
	}
	for range cap(s.places.fresh) {
		s.places.fresh <- struct{}{}
	}
	conn, err := net.Dial("unix", filepath.Join(c.Run, shim.SocketFile))
	check(t, err)
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("a connection beyond the bound ends with %v", err)
	}
}
