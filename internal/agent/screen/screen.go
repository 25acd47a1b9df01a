// Package screen knows what a terminal shows, so that a client that comes later can be shown it too. A Screen follows
// the output of a command through a terminal emulator of its own (ADR 55 says why). The package must not know what the
// command is, who looks on, or how bytes get to anyone.
package screen

import (
	"sync"
	"time"
)

const (
	maxPending = 64 << 10 // bytes that wait for the emulator
	maxItems   = 64       // sizes that wait for it
	maxRows    = 500
	maxCols    = 1000
	patience   = 500 * time.Millisecond // how long Draw waits for what is pending
)

// Screen follows what a command writes to its terminal, so that a client that comes later can be shown the screen.
type Screen struct {
	wake  chan struct{} // has a token when there may be something pending
	stop  chan struct{}
	ended chan struct{}
	once  sync.Once

	feeding  sync.Mutex // is held before the other one
	terminal *terminal
	position uint64 // in the output, behind what the terminal has got

	mu      sync.Mutex
	pending []item
	size    int // bytes of it
}

// item is data that waits, and the size that the screen gets before it.
type item struct {
	rows, cols int // 0 if the size stays
	data       []byte
	end        uint64 // the position behind the data
	torn       bool   // data before this was dropped
}

// New returns the screen of a terminal of a size in characters. A size of 0 means 24 rows and 80 columns. Sizes have
// bounds: 1 to 500 rows and 1 to 1000 columns.
func New(rows, cols uint16) *Screen {
	s := &Screen{wake: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
		terminal: newTerminal(bounded(rows, cols))}
	go s.run()
	return s
}

// bounded returns the size that a screen gets for a wish.
func bounded(rows, cols uint16) (int, int) {
	if rows == 0 {
		rows = 24
	}
	if cols == 0 {
		cols = 80
	}
	return min(int(rows), maxRows), min(int(cols), maxCols)
}

// Append adds what the command wrote. The end is the position in the command's output behind it. Append never waits for
// the emulator. If more is pending than fits, the oldest data is dropped. Append does not keep p.
func (s *Screen) Append(p []byte, end uint64) {
	if len(p) == 0 {
		return
	}
	s.mu.Lock()
	if len(s.pending) == 0 {
		s.pending = append(s.pending, item{})
	}
	last := &s.pending[len(s.pending)-1]
	if over := len(p) - maxPending; over > 0 {
		p = p[over:]
		s.size -= len(last.data)
		last.data, last.torn = nil, true
	}
	last.data, last.end = append(last.data, p...), end
	s.size += len(p)
	s.trim()
	s.mu.Unlock()
	s.wakeUp()
}

// Resize changes the size, behind what was appended before.
func (s *Screen) Resize(rows, cols uint16) {
	r, c := bounded(rows, cols)
	s.mu.Lock()
	if n := len(s.pending); n > 0 && len(s.pending[n-1].data) == 0 {
		s.pending[n-1].rows, s.pending[n-1].cols = r, c
	} else {
		s.pending = append(s.pending, item{rows: r, cols: c})
	}
	s.trim()
	s.mu.Unlock()
	s.wakeUp()
}

// trim drops the oldest data until the rest fits. All items but the first have a size of their own, so an item may go
// with its size.
func (s *Screen) trim() {
	for len(s.pending) > maxItems || len(s.pending) > 1 && s.size-len(s.pending[0].data) >= maxPending {
		gone := s.pending[0]
		s.size -= len(gone.data)
		s.pending = s.pending[1:]
		s.pending[0].torn = s.pending[0].torn || gone.torn || len(gone.data) > 0
	}
	if over := s.size - maxPending; over > 0 {
		first := &s.pending[0]
		first.data, first.torn = first.data[over:], true
		s.size -= over
	}
}

func (s *Screen) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run feeds the terminal until Close.
func (s *Screen) run() {
	defer close(s.ended)
	for {
		select {
		case <-s.stop:
			return
		case <-s.wake:
		}
		for more := true; more; {
			select {
			case <-s.stop:
				return
			default:
				s.feeding.Lock()
				more = s.step()
				s.feeding.Unlock()
			}
		}
	}
}

// step gives the terminal a piece of what is pending. It returns false if there was none.
func (s *Screen) step() bool {
	piece, ok := s.next()
	if !ok {
		return false
	}
	defer func() {
		if recover() != nil {
			s.terminal, s.position = newTerminal(s.terminal.rows, s.terminal.cols), 0
		}
	}()
	if piece.rows > 0 {
		s.terminal.resize(piece.rows, piece.cols)
	}
	if piece.torn {
		s.terminal.parser.end()
	}
	s.terminal.write(piece.data)
	if len(piece.data) > 0 {
		s.position = piece.end
	}
	return true
}

// next takes a piece of what is pending. On a large screen, bytes take more time, so it is shorter.
func (s *Screen) next() (item, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) == 0 {
		s.pending = nil
		return item{}, false
	}
	first := &s.pending[0]
	if first.torn {
		whole := resume(first.data)
		s.size -= len(first.data) - len(whole)
		first.data = whole
	}
	n := min(len(first.data), max(32, 8<<20/(s.terminal.rows*s.terminal.cols)), 4<<10)
	piece := *first
	piece.data = first.data[:n:n]
	piece.end = first.end - uint64(len(first.data)-n)
	s.size -= n
	if n == len(first.data) {
		s.pending = s.pending[1:]
	} else {
		*first = item{data: first.data[n:], end: first.end}
	}
	return piece, true
}

// resume returns data from where a terminal can go on after a gap: from an escape sequence or a new line on, if there
// is one near.
func resume(data []byte) []byte {
	for i, b := range data[:min(len(data), maxSequence)] {
		if b == esc || b == '\n' {
			return data[i:]
		}
	}
	return data
}

// Draw returns bytes that show the present screen on a client's terminal, whatever that showed before, and the position
// in the output behind which the raw stream goes on. It waits up to half a second for the emulator to catch up with
// what is pending. Rows and cols are the client's size, or 0 if that is unknown. What does not fit is cut: the rows
// shown are the last ones that have the cursor among them.
func (s *Screen) Draw(rows, cols uint16) (bytes []byte, position uint64) {
	s.feeding.Lock()
	defer s.feeding.Unlock()
	until := time.Now().Add(patience)
	for s.step() && time.Now().Before(until) {
	}
	defer func() {
		if recover() != nil {
			s.terminal, s.position = newTerminal(s.terminal.rows, s.terminal.cols), 0
			bytes, position = s.terminal.draw(int(rows), int(cols)), 0
		}
	}()
	return s.terminal.draw(int(rows), int(cols)), s.position
}

// Close ends the goroutine.
func (s *Screen) Close() {
	s.once.Do(func() { close(s.stop) })
	<-s.ended
}
