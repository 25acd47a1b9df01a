package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"banger/internal/mux"
)

// serveVsock connects the host's connections to streams of the agent's serial port, because QEMU
// has no vsock without the host kernel's help. It calls keep, which makes the session, at the first connection: until
// then the guest must hear nothing, because a guest that waits for its host goes on when it hears something.
func (m *microVM) serveVsock(session *session, keep func()) {
	var begin sync.Once
	for {
		conn, err := m.vsock.Accept()
		if err != nil {
			return
		}
		begin.Do(func() { go keep() })
		go session.connect(conn.(*net.UnixConn))
	}
}

// session is the multiplexed session with the agent. A broken one is made anew.
type session struct {
	vm      *microVM
	mu      sync.Mutex
	mux     *mux.Mux
	changed chan struct{}
	closed  bool // the device drops what is sent to the guest
	cuts    bool // the next connection is cut
}

// resumed does what the device does when its guest runs again. reset says that the guest finds an
// event on which it ends its streams.
//
// Before 1.16.0 the guest sees that event after the first connection, and cuts that connection.
// From 1.16.0 on the device passes nothing to the guest before the guest has seen the event; 1.16.0
// and 1.16.1 wait for the event even if there is none (PR 5882, PR 6100).
//
// The author of these rules ran the real 1.12.1, 1.15.1, 1.16.1 and 1.17.0-dev by hand on 28
// November 2026; CI runs 1.12.1. For 1.16.0 only the source was read. On the VM that a snapshot was
// taken of, the real program cuts the first connection sometimes; the double does so always.
func (s *session) resumed(reset bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cuts = reset && before(1, 16, 0)
	s.closed = !reset && !before(1, 16, 0) && before(1, 16, 2)
}

// gate returns what happens to a new connection: the device is closed, or the connection is cut.
func (s *session) gate() (closed, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cut, s.cuts = s.cuts, false
	return s.closed, cut
}

// toGuest is the direction of a stream towards the guest. A closed device drops what is written.
type toGuest struct {
	session *session
	stream  net.Conn
}

func (w toGuest) Write(b []byte) (int, error) {
	w.session.mu.Lock()
	closed := w.session.closed
	w.session.mu.Unlock()
	if closed {
		return len(b), nil
	}
	return w.stream.Write(b)
}

func (s *session) keep() {
	for {
		conn, err := s.vm.dialAgent()
		if err != nil { // the emulator cannot connect the port of a paused guest
			select {
			case <-s.vm.gone:
				return
			case <-time.After(5 * time.Millisecond):
				continue
			}
		}
		mux, err := mux.Connect(context.Background(), conn)
		if err != nil {
			conn.Close()
			continue
		}
		s.set(mux)
		<-mux.Done()
		s.set(nil)
		mux.Close()
	}
}

// drop ends all streams. The session is made anew.
func (s *session) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mux != nil {
		s.mux.Close()
	}
}

func (s *session) set(mux *mux.Mux) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mux = mux
	close(s.changed)
	s.changed = make(chan struct{})
}

// connect executes "CONNECT port\n" (docs/vsock.md). Before the guest has a driver, a request waits
// in the device. If the guest does not listen on the port, the connection ends without an answer.
func (s *session) connect(conn *net.UnixConn) {
	defer conn.Close()
	var line []byte
	for b := make([]byte, 1); len(line) < 32; {
		if _, err := io.ReadFull(conn, b); err != nil {
			return
		}
		if b[0] == '\n' {
			break
		}
		line = append(line, b[0])
	}
	port, err := strconv.ParseUint(strings.TrimPrefix(string(line), "CONNECT "), 10, 32)
	if err != nil || !strings.HasPrefix(string(line), "CONNECT ") {
		return
	}
	closed, cut := s.gate()
	if closed || s.vm.incoming && os.Getenv("DOUBLE_LOSES_VSOCK") != "" { // a fault that tests ask for
		io.Copy(io.Discard, conn)
		return
	}
	stream, err := s.dial(uint32(port))
	if err != nil {
		return
	}
	defer stream.Close()
	if _, err := fmt.Fprintf(conn, "OK %d\n", 1<<30+port); err != nil || cut {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		io.Copy(toGuest{s, stream}, conn)
		stream.(interface{ CloseWrite() error }).CloseWrite()
	})
	wg.Go(func() {
		io.Copy(conn, stream)
		conn.CloseWrite()
	})
	wg.Wait()
}

func (s *session) dial(port uint32) (net.Conn, error) {
	for {
		s.mu.Lock()
		mux, changed := s.mux, s.changed
		s.mu.Unlock()
		if mux != nil {
			return mux.Dial(context.Background(), port)
		}
		<-changed
	}
}
