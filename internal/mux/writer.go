package mux

import (
	"fmt"

	"slices"
)

// batchSize is the maximum number of bytes of frames in one write. Writes are large because each one crosses the
// virtio device of a guest that may be emulated.
const batchSize = 512 << 10

// page is the unit in which payloads are written without a copy. The first len%page bytes of a payload are copied
// after the header, because a separate part would cost more.
const page = 4 << 10

// vectorWriter is a channel that writes many parts at once, so payloads need no copy. Only the guest's end has one.
// There a sender waits until the host has taken its bytes, and the guest trusts the host to continue reading.
type vectorWriter interface {
	WriteVector(parts [][]byte) error
}

// batch is the content of one write.
type batch struct {
	head  []byte   // control frames, headers and short payloads, one after another
	parts [][]byte // slices of head, and long payloads
	sent  []*pending
}

// writeLoop writes queued frames in order, control frames first, many per write. It returns when the session has
// ended.
func (s *session) writeLoop() {
	var b batch
	write := s.copying()
	if v, ok := s.w.(vectorWriter); ok {
		write = func(b *batch) error {
			err := v.WriteVector(b.parts)
			b.finish(err)
			return err
		}
	}
	for s.take(&b) {
		if err := write(&b); err != nil {
			s.end(fmt.Errorf("writing to the channel: %w", err))
			return
		}
		if cap(b.head) > 64<<10 {
			b.head = nil // free the memory of a burst
		}
	}
}

// copying returns a function that copies payloads before it writes them, so their senders do not wait for the
// channel.
func (s *session) copying() func(*batch) error {
	var buf []byte
	return func(b *batch) error {
		buf = buf[:0]
		for _, p := range b.parts {
			buf = append(buf, p...)
		}
		b.finish(nil)
		_, err := s.w.Write(buf)
		if cap(buf) > 64<<10 && len(buf) < 8<<10 {
			buf = nil
		}
		return err
	}
}

// finish tells the senders that they may use their payloads again.
func (b *batch) finish(err error) {
	for _, p := range b.sent {
		p.done <- err
	}
	clear(b.sent)
	clear(b.parts)
}

// take waits for frames and moves them into b. It returns false when the session has ended.
func (s *session) take(b *batch) bool {
	s.out.Lock()
	defer s.out.Unlock()
	for len(s.control) == 0 && len(s.data) == 0 && !s.closed {
		s.ready.Wait()
	}
	if s.closed {
		return false
	}
	n, total, head := 0, len(s.control), len(s.control)
	for n < len(s.data) && total < batchSize {
		size := len(s.data[n].payload)
		total += headerSize + size
		head += headerSize + size%page
		n++
	}
	b.head = append(slices.Grow(b.head[:0], head), s.control...) // it does not grow below, so slices of it stay valid
	s.control = s.control[:0]
	b.parts, b.sent = b.parts[:0], append(b.sent[:0], s.data[:n]...)
	s.data = append([]*pending(nil), s.data[n:]...)
	from := 0
	for _, p := range b.sent {
		b.head = appendHeader(b.head, header{frameData, s.id, p.stream, uint32(len(p.payload))})
		odd := len(p.payload) % page
		b.head = append(b.head, p.payload[:odd]...)
		if odd < len(p.payload) {
			b.parts = append(b.parts, b.head[from:], p.payload[odd:])
			from = len(b.head)
		}
	}
	if from < len(b.head) {
		b.parts = append(b.parts, b.head[from:])
	}
	return true
}
