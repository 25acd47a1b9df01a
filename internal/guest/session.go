package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
)

// maxStreams bounds the streams of one session.
const maxStreams = 1024

// session is one agreed conversation over the channel. Frames are written by a
// goroutine of its own, so that the reader never waits for the writer: otherwise
// two full pipes would wait for each other.
type session struct {
	w  io.Writer
	id uint32

	accept func(*stream) // guest: handles a stream the peer opened; nil: peer may not open
	host   *hostShared   // host: memory of the guest; nil: none
	guest  *guestShared  // guest: the same

	mu      sync.Mutex
	streams map[uint32]*stream
	nextID  uint32
	err     error
	done    chan struct{}

	out     sync.Mutex // guards what follows
	ready   *sync.Cond // there is something to write, or an end
	control []byte     // frames of a few bytes, bounded by the streams
	data    []*pending
	closed  bool
}

// pending is one data frame that waits for the writer.
type pending struct {
	typ     frameType
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

// open makes a stream to a port of the peer; data may be sent at once.
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

// maxControl bounds queued control frames; a peer that makes us queue more
// without reading them is ended.
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

// queueData queues one frame. Its done gets a value when the writer needs the
// payload no more, unless the frame is withdrawn.
func (s *session) queueData(typ frameType, id uint32, payload []byte) (*pending, error) {
	s.out.Lock()
	defer s.out.Unlock()
	if s.closed {
		return nil, s.failure()
	}
	p := &pending{typ, id, payload, donePool.Get().(chan error)}
	s.data = append(s.data, p)
	s.ready.Signal()
	return p, nil
}

// withdraw takes back a frame that the writer has not begun and reports whether
// there was one.
func (s *session) withdraw(p *pending) bool {
	s.out.Lock()
	defer s.out.Unlock()
	i := slices.Index(s.data, p)
	if i >= 0 {
		s.data = slices.Delete(s.data, i, i+1)
	}
	return i >= 0
}

// receive handles one frame whose header has been read. An error ends the
// session: the peer broke the protocol or the channel broke.
func (s *session) receive(h header, r io.Reader) error {
	var small [4]byte
	switch h.typ {
	case frameAsk, frameOffer, frameAccept, frameShared, frameFree:
		return s.receiveShared(h, r)
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
		s.moved(len(b))
		if st := s.stream(h.stream); st != nil {
			return st.deliver(b)
		}
		putBuffer(b) // of a stream that was closed here meanwhile
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

func (s *session) isGuest() bool { return s.accept != nil }

// receiveShared handles the frames of memory that both ends reach.
func (s *session) receiveShared(h header, r io.Reader) error {
	payload := make([]byte, h.length)
	if _, err := io.ReadFull(r, payload); err != nil {
		return err
	}
	switch h.typ {
	case frameAsk:
		if s.isGuest() {
			return s.sendControl(frameOffer, 0, s.guest.offer())
		}
	case frameOffer:
		if ok, err := s.host.offered(payload); err != nil || !ok {
			return err
		}
		return s.sendControl(frameAccept, 0, nil)
	case frameAccept:
		if !s.isGuest() {
			return s.host.accepted()
		}
		if s.guest.accepted() {
			return s.sendControl(frameAccept, 0, nil)
		}
		return nil
	case frameFree:
		switch i := binary.BigEndian.Uint32(payload); {
		case s.guest != nil:
			return s.guest.slots.put(i)
		case s.host != nil:
			return s.host.slots.put(i)
		}
	case frameShared:
		return s.receiveSlot(h.stream, payload)
	}
	return errors.New("a frame of memory from the wrong end")
}

// receiveSlot handles data that lies in a slot.
func (s *session) receiveSlot(id uint32, payload []byte) error {
	first := slotsEach
	if s.isGuest() {
		first = 0
	}
	where, err := parseSlot(payload, first)
	if err != nil {
		return err
	}
	var b []byte
	if s.isGuest() {
		b, err = s.guest.received(where)
	} else {
		b = getBuffer(int(where.length))
		err = s.host.receive(where, b)
		if err == nil {
			err = s.sendControl(frameFree, 0, binary.BigEndian.AppendUint32(nil, where.index))
		}
	}
	if err != nil {
		return err
	}
	if st := s.stream(id); st != nil {
		return st.deliver(b)
	}
	s.release(b)
	return nil
}

// moved counts payloads, and asks the guest for memory when there were many.
func (s *session) moved(n int) {
	if s.host.count(n) {
		s.sendControl(frameAsk, 0, nil)
	}
}

// carry chooses how p travels: as it is, or in a slot.
func (s *session) carry(p []byte) (frameType, []byte) {
	s.moved(len(p))
	where, ok := s.host.send(p)
	if i, mine := s.guest.done(p, slotsEach); mine {
		where, ok = slot{i, uint32(len(p))}, true
	}
	if !ok {
		return frameData, p
	}
	return frameShared, where.append(nil)
}

// uncarry takes back what carry chose for a frame that was not sent.
func (s *session) uncarry(typ frameType, payload []byte) {
	if typ != frameShared {
		return
	}
	i := binary.BigEndian.Uint32(payload)
	if s.host != nil {
		s.host.slots.put(i)
	} else {
		s.guest.lend(i)
	}
}

// release takes back a buffer that was delivered to a stream.
func (s *session) release(b []byte) {
	if i, ok := s.guest.done(b, 0); ok {
		s.sendControl(frameFree, 0, binary.BigEndian.AppendUint32(nil, i))
		return
	}
	putBuffer(b)
}

// giveBack takes back b if it was borrowed, which need not be so.
func (s *session) giveBack(b []byte) {
	if i, ok := s.guest.done(b, slotsEach); ok {
		s.guest.slots.put(i)
	}
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
