package mux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
)

// maxStreams is the maximum number of streams of one session.
const maxStreams = 1024

// session is one agreed conversation over the channel. A goroutine of its own writes the frames, so the reader never
// waits for the writer. Otherwise two full pipes would wait for each other.
type session struct {
	w  io.Writer
	id uint32

	accept func(*stream) // guest: handles a stream that the peer opened; nil: the peer may not open streams

	mu      sync.Mutex
	streams map[uint32]*stream
	nextID  uint32
	err     error
	done    chan struct{}

	out     sync.Mutex // guards the fields below
	ready   *sync.Cond // there is something to write, or the session has ended
	control []byte     // frames of a few bytes, bounded by the number of streams
	data    []*pending
	closed  bool
}

// pending is one data frame that waits for the writer.
type pending struct {
	stream  uint32
	payload []byte
	done    chan error
}

func newSession(w io.Writer, id uint32, accept func(*stream)) *session {
	s := &session{w: w, id: id, accept: accept, streams: map[uint32]*stream{}, done: make(chan struct{})}
	s.ready = sync.NewCond(&s.out)
	return s
}

// end ends the session and all its streams with err, once.
func (s *session) end(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	streams := s.streams
	s.streams = nil
	close(s.done)
	s.mu.Unlock()
	for _, st := range streams {
		st.fail(err)
	}
	s.out.Lock()
	s.closed = true
	waiting := s.data
	s.data = nil
	s.ready.Broadcast()
	s.out.Unlock()
	for _, p := range waiting {
		p.done <- err
	}
}

func (s *session) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// open makes a stream to a port of the peer. Data may be sent at once.
func (s *session) open(port uint32) (*stream, error) {
	s.mu.Lock()
	if s.err != nil {
		defer s.mu.Unlock()
		return nil, s.err
	}
	if len(s.streams) >= maxStreams {
		s.mu.Unlock()
		return nil, fmt.Errorf("%d streams are open already", maxStreams)
	}
	s.nextID++
	st := newStream(s, s.nextID, port)
	s.streams[st.id] = st
	s.mu.Unlock()
	return st, s.sendControl(frameOpen, st.id, binary.BigEndian.AppendUint32(nil, port))
}

func (s *session) forget(id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, id)
}

func (s *session) stream(id uint32) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[id]
}

// maxControl is the maximum number of bytes of queued control frames. If a peer causes more without reading them, its
// session ends.
const maxControl = 1 << 20

func (s *session) sendControl(t frameType, id uint32, payload []byte) error {
	s.out.Lock()
	defer s.out.Unlock()
	if s.closed {
		return s.failure()
	}
	if len(s.control) > maxControl {
		go s.end(errors.New("the peer does not read control frames"))
		return errors.New("the peer does not read control frames")
	}
	s.control = appendHeader(s.control, header{t, s.id, id, uint32(len(payload))})
	s.control = append(s.control, payload...)
	s.ready.Signal()
	return nil
}

func (s *session) sendWindow(id uint32, credit int) {
	s.sendControl(frameWindow, id, binary.BigEndian.AppendUint32(nil, uint32(credit)))
}

var donePool = sync.Pool{New: func() any { return make(chan error, 1) }}

// queueData queues one frame. The writer sends on its done channel when it no longer needs the payload, unless the
// frame is withdrawn.
func (s *session) queueData(id uint32, payload []byte) (*pending, error) {
	s.out.Lock()
	defer s.out.Unlock()
	if s.closed {
		return nil, s.failure()
	}
	p := &pending{id, payload, donePool.Get().(chan error)}
	s.data = append(s.data, p)
	s.ready.Signal()
	return p, nil
}

// withdraw takes back a frame that the writer has not begun, and reports whether it did.
func (s *session) withdraw(p *pending) bool {
	s.out.Lock()
	defer s.out.Unlock()
	i := slices.Index(s.data, p)
	if i >= 0 {
		s.data = slices.Delete(s.data, i, i+1)
	}
	return i >= 0
}

// receive handles one frame whose header has been read. An error ends the session, because the peer broke the
// protocol or the channel broke.
func (s *session) receive(h header, r io.Reader) error {
	var small [4]byte
	switch h.typ {
	case frameOpen, frameWindow:
		if _, err := io.ReadFull(r, small[:]); err != nil {
			return err
		}
		value := binary.BigEndian.Uint32(small[:])
		if h.typ == frameOpen {
			return s.peerOpened(h.stream, value)
		}
		if st := s.stream(h.stream); st != nil {
			if value > window {
				return errors.New("more credit than the window")
			}
			return st.addCredit(int(value))
		}
	case frameData:
		b := getBuffer(int(h.length))
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		if st := s.stream(h.stream); st != nil {
			return st.deliver(b)
		}
		putBuffer(b) // the stream was closed here meanwhile
	case frameFin:
		if st := s.stream(h.stream); st != nil && st.peerFinished() {
			s.forget(h.stream)
		}
	case frameReset:
		if _, err := io.CopyN(io.Discard, r, int64(h.length)); err != nil {
			return err
		}
		if st := s.stream(h.stream); st != nil {
			s.forget(h.stream)
			st.fail(errReset)
		}
	}
	return nil
}

func (s *session) peerOpened(id, port uint32) error {
	if s.accept == nil {
		return errors.New("the guest may not open streams")
	}
	s.mu.Lock()
	if s.err != nil || s.streams[id] != nil {
		s.mu.Unlock()
		return fmt.Errorf("stream %d was opened twice", id)
	}
	if len(s.streams) >= maxStreams {
		s.mu.Unlock()
		return s.sendControl(frameReset, id, nil)
	}
	st := newStream(s, id, port)
	s.streams[id] = st
	s.mu.Unlock()
	go s.accept(st)
	return nil
}

var _ net.Conn = (*stream)(nil)
