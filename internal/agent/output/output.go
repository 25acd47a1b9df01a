// Package output keeps what the main command writes until the host has it. It must not know what the command is, nor
// how the host's stream is made.
package output

import (
	"errors"
	"io"
	"net"
	"sort"
	"sync"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
)

// maxKept is the maximum number of bytes that the host has not taken yet. A writer waits when there is no room. It is
// several times guest.TakenBytes, and a record costs recordCost besides its buffer, so guest.TakenRecords fit as well.
const (
	maxKept    = 1 << 20
	recordCost = 64
)

// head is the length in bytes of what comes before a record's data in its frame.
const head = frame.Header + guest.RecordHeader

// Sizes in bytes of the buffers for reading. Most commands write little.
const (
	smallRead = 4 << 10
	largeRead = 256 << 10
)

var largeBuffers = sync.Pool{New: func() any {
	b := make([]byte, head+largeRead)
	return &b
}}

// Log is the output of one main command.
type Log struct {
	mu        sync.Mutex
	records   []record // those that the host has not taken, in the order of their positions
	end       uint64   // how many bytes were written in all
	kept      int      // what records cost
	closed    bool
	changed   chan struct{} // closed and replaced at each change
	delivered chan struct{} // closed when the log is closed and the host has taken all
	sender    *sender       // the latest; its stream is closed before another begins
}

// sender is one answer to the host.
type sender struct {
	conn net.Conn
	sent uint64 // the position after what was sent; Log.mu guards it
	gone chan struct{}
	over chan struct{} // closed when nothing is sent any more
}

// record is one record, as the frame that is sent.
type record struct {
	frame []byte
	at    uint64 // the position of its first byte
	large *[]byte
}

func (r record) next() uint64 { return r.at + uint64(len(r.frame)-head) }
func (r record) cost() int    { return cap(r.frame) + recordCost }

// New returns an empty log.
func New() *Log { return &Log{changed: make(chan struct{}), delivered: make(chan struct{})} }

// wake tells all waiters that something changed. l.mu is held.
func (l *Log) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Record adds what from has, as output of a stream, until from ends. It waits while the host takes nothing.
func (l *Log) Record(stream frame.Type, from io.Reader) error {
	small := make([]byte, head+smallRead)
	var large *[]byte // from the pool, for a command that writes much
	defer func() {
		if large != nil {
			largeBuffers.Put(large)
		}
	}()
	for {
		buf := small
		if large != nil {
			buf = *large
		}
		l.awaitRoom()
		n, err := from.Read(buf[head:])
		switch {
		case n == 0:
		case large != nil && n > largeRead/2:
			l.add(stream, buf[:head+n], large)
			large = largeBuffers.Get().(*[]byte)
		default:
			l.add(stream, append([]byte(nil), buf[:head+n]...), nil)
		}
		switch {
		case large == nil && n == smallRead:
			large = largeBuffers.Get().(*[]byte)
		case large != nil && n < smallRead:
			largeBuffers.Put(large)
			large = nil
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (l *Log) awaitRoom() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.kept >= maxKept {
		changed := l.changed
		l.mu.Unlock()
		<-changed
		l.mu.Lock()
	}
}

// add completes the frame, whose data is there, and keeps it.
func (l *Log) add(stream frame.Type, buf []byte, large *[]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	frame.PutHeader(buf, stream, len(buf)-frame.Header)
	guest.PutRecordHeader(buf[frame.Header:], l.end, time.Now())
	r := record{buf, l.end, large}
	l.records = append(l.records, r)
	l.end, l.kept = r.next(), l.kept+r.cost()
	l.wake()
}

// Close says that nothing more will be written.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	if len(l.records) == 0 {
		close(l.delivered)
	}
	l.wake()
}

// Delivered returns a channel that is closed when the host has all output of a closed log.
func (l *Log) Delivered() <-chan struct{} { return l.delivered }

// taken removes the records before a position, if s is the latest sender and has sent them.
func (l *Log) taken(s *sender, position uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s != l.sender || position > s.sent {
		return
	}
	n := sort.Search(len(l.records), func(i int) bool { return l.records[i].next() > position })
	if n == 0 {
		return
	}
	for i, r := range l.records[:n] {
		l.kept -= r.cost()
		if r.large != nil {
			largeBuffers.Put(r.large)
		}
		l.records[i] = record{}
	}
	l.records = l.records[n:]
	if l.closed && len(l.records) == 0 {
		close(l.delivered)
	}
	l.wake()
}

// at returns the record that begins at a position, or a channel that is closed when there may be one. over says that
// the output ends there.
func (l *Log) at(position uint64) (r record, over bool, changed <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if position == l.end {
		return r, l.closed, l.changed, nil
	}
	i := sort.Search(len(l.records), func(i int) bool { return l.records[i].at >= position })
	if i == len(l.records) || l.records[i].at != position {
		return r, false, nil, banger.Errorf(banger.CodeInvalid,
			"no output begins at byte %d: the host has taken it, or it was not written", position)
	}
	return l.records[i], false, nil, nil
}

// Send answers a request for the output from a position on: it sends records until the output or the stream has ended.
// frames are those of the client, which says with frame.Taken what it has. A later request ends an earlier one.
func (l *Log) Send(conn net.Conn, frames *frame.Reader, position uint64) error {
	if position == guest.FirstOutput {
		position = l.first()
	}
	s := &sender{conn: conn, sent: position, gone: make(chan struct{}), over: make(chan struct{})}
	defer close(s.over)
	l.mu.Lock()
	before := l.sender
	l.sender = s
	l.mu.Unlock()
	if before != nil {
		before.conn.Close()
		<-before.over
	}
	go l.hear(s, frames)
	for {
		r, over, changed, err := l.at(s.sent)
		switch {
		case err != nil:
			return err
		case r.frame != nil:
			l.mu.Lock()
			s.sent = r.next()
			l.mu.Unlock()
			if _, err := conn.Write(r.frame); err != nil {
				return nil // the client is gone
			}
			continue
		case over:
			if frame.Write(conn, frame.Exit, nil) == nil {
				<-s.gone // the client closes the stream when it has the answer
			}
			return nil
		}
		select {
		case <-changed:
		case <-s.gone:
			return nil
		}
	}
}

// first returns the position of the first byte that is kept.
func (l *Log) first() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.records) > 0 {
		return l.records[0].at
	}
	return l.end
}

// hear takes what the client of s says until the stream ends.
func (l *Log) hear(s *sender, frames *frame.Reader) {
	defer close(s.gone)
	for {
		t, p, err := frames.Next()
		if err != nil {
			return
		}
		if position, ok := guest.Taken(p); ok && t == frame.Taken {
			l.taken(s, position)
		}
	}
}
