package transcript

import (
	"io"
	"os"
	"sort"
)

// Reader reads a transcript from a position on. It is for one goroutine, whose slowness delays nothing else.
type Reader struct {
	t        *Transcript
	position uint64
	scanner  scanner
	segment  uint64 // the name of the scanner's file
	past     uint64 // files with a lower name have nothing more
}

// Read returns a reader from a position on. The caller closes it.
func (t *Transcript) Read(position uint64) *Reader { return &Reader{t: t, position: position} }

// Position returns the position of the next byte that the reader has not returned.
func (r *Reader) Position() uint64 { return r.position }

// Close releases the reader's file.
func (r *Reader) Close() {
	if r.scanner.file != nil {
		r.scanner.file.Close()
		r.scanner.file = nil
	}
}

// Next returns the first record from the reader's position on, whose data is valid until the next call. Its position is
// higher than the reader's if what lies between is lost. At the end of what was written, Next returns no data, and a
// channel that is closed when there may be more; the channel is nil if the transcript is closed.
func (r *Reader) Next() (Record, <-chan struct{}) {
	for {
		found, wait, more := r.inMemory()
		if !more {
			return found, wait
		}
		if found, ok := r.inFile(); ok {
			if kept, ok := r.inGap(found); ok {
				found = kept
			}
			r.position = found.end()
			return found, nil
		}
	}
}

// inGap returns the first record that only memory has, because the disk had no room for it, if it comes before the
// next record of the scanner's file. The scanner then stays before that.
func (r *Reader) inGap(next Record) (found Record, ok bool) {
	if next.Position == r.position {
		return found, false
	}
	t := r.t
	t.mu.Lock()
	defer t.mu.Unlock()
	i := sort.Search(len(t.recent), func(i int) bool { return t.recent[i].end() > r.position })
	if i == len(t.recent) || t.recent[i].Position >= next.Position {
		return found, false
	}
	r.scanner.at -= int64(Head + len(next.Data))
	return t.recent[i].from(r.position), true
}

// inMemory looks for the next record in memory. more is true if it must be looked for in a file.
func (r *Reader) inMemory() (found Record, wait <-chan struct{}, more bool) {
	t := r.t
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle()
	if r.position >= t.end {
		return r.atEnd()
	}
	if len(t.recent) == 0 || r.position < t.recent[0].Position {
		if r.locate() {
			return Record{}, nil, true
		}
		if len(t.recent) == 0 { // the rest is lost
			r.position = t.end
			return r.atEnd()
		}
		r.position = t.recent[0].Position
		found = t.recent[0]
	} else {
		i := sort.Search(len(t.recent), func(i int) bool { return t.recent[i].end() > r.position })
		found = t.recent[i]
	}
	found = found.from(r.position)
	r.position = found.end()
	return found, nil, false
}

// atEnd returns the results of inMemory at the end of what was written. t.mu is held.
func (r *Reader) atEnd() (Record, <-chan struct{}, bool) {
	if r.t.closed {
		return Record{}, nil, false
	}
	return Record{}, r.t.changed, false
}

// locate makes the scanner read the file that has the next record. It returns false if no file has records from the
// position on. t.mu is held.
func (r *Reader) locate() bool {
	t := r.t
	for i := t.segmentAt(r.position); i < len(t.segments); i++ {
		s := t.segments[i]
		if s.first < r.past {
			continue
		}
		if r.scanner.file == nil || r.segment != s.first {
			r.Close()
			f, err := os.Open(t.path(s))
			if err != nil {
				continue
			}
			r.scanner, r.segment = scanner{file: f, buf: r.scanner.buf[:0]}, s.first
		}
		r.scanner.limit = s.size
		if r.scanner.at < s.size {
			return true
		}
	}
	return false
}

// inFile returns the next record of the scanner's file, or false if none of its records ends behind the position. A
// file that breaks off in the middle has no more records.
func (r *Reader) inFile() (Record, bool) {
	for {
		found, err := r.scanner.next()
		if err != nil {
			r.past = r.segment
			if err != io.EOF {
				r.past++
			}
			return found, false
		}
		if found.end() <= r.position {
			continue
		}
		return found.from(r.position), true
	}
}
