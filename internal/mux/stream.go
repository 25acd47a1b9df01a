package mux

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// window is the maximum number of bytes of a stream that are on their way to a reader that does not read. One stream
// costs at most about twice that in memory.
const window = 4 * maxPayload

var errReset = errors.New("the stream was reset")

// stream is one connection inside a session. It implements net.Conn and CloseWrite.
type stream struct {
	s    *session
	id   uint32
	port uint32

	mu       sync.Mutex
	received [][]byte // filled buffers of the pool
	queued   int      // bytes in received
	consumed int      // bytes read since the last credit
	credit   int      // bytes that may still be sent
	finIn    bool     // the peer sends no more data
	finOut   bool     // this end sends no more data
	err      error    // the stream is over
	changed  chan struct{}
	over     chan struct{} // closed when err is set

	readDeadline, writeDeadline deadline

	reading sync.Mutex // guards the fields below
	buffer  []byte     // the reader's current buffer, taken from received
	held    []byte     // the unread part of buffer
	isLent  bool       // a part of buffer is lent
	lent    [][]byte   // buffers that were read completely and are not yet released
	closed  bool
}

func newStream(s *session, id, port uint32) *stream {
	return &stream{s: s, id: id, port: port, credit: window,
		changed: make(chan struct{}), over: make(chan struct{}), readDeadline: newDeadline(), writeDeadline: newDeadline()}
}

// wake tells all waiters that something changed. st.mu is held.
func (st *stream) wake() {
	close(st.changed)
	st.changed = make(chan struct{})
}

// Read implements net.Conn.
func (st *stream) Read(p []byte) (int, error) {
	st.reading.Lock()
	defer st.reading.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	b, err := st.next(len(p))
	return copy(p, b), err
}

// ReadChunk is like Read without a copy. It returns up to max bytes, which are valid until Release, even if the
// stream is closed before. A caller of ReadChunk must call Release in the end.
func (st *stream) ReadChunk(max int) ([]byte, error) {
	st.reading.Lock()
	defer st.reading.Unlock()
	b, err := st.next(max)
	st.isLent = st.isLent || err == nil
	return b, err
}

// Release takes back everything that ReadChunk has lent.
func (st *stream) Release() {
	st.reading.Lock()
	defer st.reading.Unlock()
	for _, b := range st.lent {
		putBuffer(b)
	}
	clear(st.lent)
	st.lent, st.isLent = st.lent[:0], false
	if len(st.held) == 0 || st.closed {
		st.dropBuffer()
	}
}

// dropBuffer releases the reader's buffer. st.reading is held.
func (st *stream) dropBuffer() {
	putBuffer(st.buffer)
	st.buffer, st.held = nil, nil
}

// Buffered returns how many bytes can be read without waiting.
func (st *stream) Buffered() int {
	st.reading.Lock()
	defer st.reading.Unlock()
	st.mu.Lock()
	defer st.mu.Unlock()
	return len(st.held) + st.queued
}

func (st *stream) next(max int) ([]byte, error) {
	if len(st.held) == 0 {
		if st.isLent {
			st.lent = append(st.lent, st.buffer)
		} else {
			putBuffer(st.buffer)
		}
		st.buffer, st.isLent = nil, false
		b, err := st.takeBuffer()
		if err != nil {
			return nil, err
		}
		st.buffer, st.held = b, b
	}
	b := st.held[:min(max, len(st.held))]
	st.held = st.held[len(b):]
	return b, nil
}

// takeBuffer waits for a buffer of received bytes and gives the peer new credit.
func (st *stream) takeBuffer() ([]byte, error) {
	for {
		st.mu.Lock()
		if len(st.received) > 0 {
			b := st.received[0]
			st.received[0] = nil
			st.received = st.received[1:]
			st.queued -= len(b)
			st.consumed += len(b)
			give := 0
			if st.consumed >= window/2 && !st.finIn {
				give, st.consumed = st.consumed, 0
			}
			st.mu.Unlock()
			if give > 0 {
				st.s.sendWindow(st.id, give)
			}
			return b, nil
		}
		err, fin, changed := st.err, st.finIn, st.changed
		st.mu.Unlock()
		switch {
		case fin:
			return nil, io.EOF
		case err != nil:
			return nil, err
		}
		select {
		case <-changed:
		case <-st.readDeadline.wait():
			return nil, os.ErrDeadlineExceeded
		}
	}
}

// Write implements net.Conn.
func (st *stream) Write(p []byte) (int, error) {
	total := 0
	for total < len(p) {
		n := min(len(p)-total, maxPayload)
		if err := st.reserve(n); err != nil {
			return total, err
		}
		if err := st.send(p[total : total+n]); err != nil {
			return total, err
		}
		total += n
	}
	return total, nil
}

// reserve waits for credit for n bytes, at most maxPayload, and takes it. It does not split a frame that exceeds the
// credit, because pieces cost the receiver more than the wait costs.
func (st *stream) reserve(n int) error {
	for {
		st.mu.Lock()
		err, credit, changed := st.err, st.credit, st.changed
		if err == nil && st.finOut {
			err = io.ErrClosedPipe
		}
		if err == nil && credit >= n {
			st.credit -= n
			st.mu.Unlock()
			return nil
		}
		st.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-st.writeDeadline.wait():
			return os.ErrDeadlineExceeded
		}
	}
}

// send passes p, for which there is credit, to the session's writer. It waits while the channel is stuck, but not
// beyond the deadline or Close.
func (st *stream) send(p []byte) error {
	frame, err := st.s.queueData(st.id, p)
	if err != nil {
		return err
	}
	for {
		st.mu.Lock()
		err, changed := st.err, st.changed
		st.mu.Unlock()
		if err == nil {
			select {
			case err := <-frame.done:
				donePool.Put(frame.done)
				return err
			case <-changed:
				continue
			case <-st.writeDeadline.wait():
				err = os.ErrDeadlineExceeded
			}
		}
		if !st.s.withdraw(frame) {
			sent := <-frame.done
			donePool.Put(frame.done)
			return sent
		}
		st.mu.Lock()
		st.credit += len(p)
		st.mu.Unlock()
		return err
	}
}

// CloseWrite tells the peer that no more data will come. Reading continues to work.
func (st *stream) CloseWrite() error {
	st.mu.Lock()
	if st.finOut || st.err != nil {
		err := st.err
		st.mu.Unlock()
		return err
	}
	st.finOut = true
	both := st.finIn
	st.mu.Unlock()
	err := st.s.sendControl(frameFin, st.id, nil)
	if both {
		st.s.forget(st.id)
	}
	return err
}

// Close ends both directions. Unread data is lost.
func (st *stream) Close() error {
	st.mu.Lock()
	over := st.err != nil
	clean := st.finIn && st.finOut
	if !over {
		st.err = net.ErrClosed
		close(st.over)
	}
	st.dropLocked()
	st.wake()
	st.mu.Unlock()
	st.reading.Lock() // a waiting reader has returned by now
	st.closed = true
	if !st.isLent {
		st.dropBuffer()
	}
	st.reading.Unlock()
	if over {
		return nil
	}
	st.s.forget(st.id)
	if clean {
		return nil
	}
	return st.s.sendControl(frameReset, st.id, nil)
}

func (st *stream) dropLocked() {
	for _, b := range st.received {
		putBuffer(b)
	}
	st.received, st.queued = nil, 0
}

// deliver takes ownership of b. It returns an error if the peer exceeded the window.
func (st *stream) deliver(b []byte) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.finIn {
		return errors.New("data after the end of a stream")
	}
	if st.err != nil { // closed here; the peer does not know yet
		putBuffer(b)
		return nil
	}
	if st.queued+st.consumed+len(b) > window {
		return errors.New("more data than the window allows")
	}
	if len(b) == 0 {
		return nil
	}
	st.queued += len(b)
	st.appendLocked(b)
	st.wake()
	return nil
}

// appendLocked joins small pieces, so their memory is close to their length.
func (st *stream) appendLocked(b []byte) {
	n := len(st.received)
	if n == 0 || len(b) > smallBuffer || len(st.received[n-1])+len(b) > maxPayload {
		st.received = append(st.received, b)
		return
	}
	last := st.received[n-1]
	if need := len(last) + len(b); cap(last) < need {
		grown := getBuffer(min(2*need, maxPayload))[:0]
		grown = append(grown, last...)
		putBuffer(last)
		last = grown
	}
	st.received[n-1] = append(last, b...)
	putBuffer(b)
}

func (st *stream) addCredit(n int) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.credit+n > window {
		return errors.New("more credit than the window")
	}
	st.credit += n
	st.wake()
	return nil
}

// peerFinished marks the end of the peer's data, and reports whether both directions have ended.
func (st *stream) peerFinished() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.finIn = true
	st.wake()
	return st.finOut
}

// fail ends the stream with err. Data already received can still be read.
func (st *stream) fail(err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err == nil {
		st.err = err
		close(st.over)
		st.wake()
	}
}

// Done is closed when the stream is over in both directions: it was closed here or by the peer, or its session has
// ended. It lets a caller that is not reading notice the end.
func (st *stream) Done() <-chan struct{} { return st.over }

type addr uint32

func (addr) Network() string  { return "banger" }
func (a addr) String() string { return "agent" }

// LocalAddr implements net.Conn.
func (st *stream) LocalAddr() net.Addr { return addr(st.port) }

// RemoteAddr implements net.Conn.
func (st *stream) RemoteAddr() net.Addr { return addr(st.port) }

// SetDeadline implements net.Conn.
func (st *stream) SetDeadline(t time.Time) error {
	st.readDeadline.set(t)
	st.writeDeadline.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (st *stream) SetReadDeadline(t time.Time) error { st.readDeadline.set(t); return nil }

// SetWriteDeadline implements net.Conn.
func (st *stream) SetWriteDeadline(t time.Time) error { st.writeDeadline.set(t); return nil }

// deadline is a channel that is closed at a time that can be set.
type deadline struct {
	mu    *sync.Mutex
	state *deadlineState
}

type deadlineState struct {
	timer  *time.Timer
	passed chan struct{}
}

func newDeadline() deadline {
	return deadline{&sync.Mutex{}, &deadlineState{passed: make(chan struct{})}}
}

func (d deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.passed
}

func (d deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state.timer != nil && !d.state.timer.Stop() {
		<-d.state.passed // the timer's function runs or has run
	}
	d.state.timer = nil
	select {
	case <-d.state.passed:
		d.state.passed = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	passed := d.state.passed
	if left := time.Until(t); left > 0 {
		d.state.timer = time.AfterFunc(left, func() { close(passed) })
		return
	}
	close(passed)
}
