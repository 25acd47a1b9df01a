package output

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/untrusted"
)

// Log writes the output of one VM. Its Append never fails, because a full host disk must not stop a guest.
type Log struct {
	mu       sync.Mutex
	path     string
	file     *os.File
	size     int64  // bytes of complete records in file
	position uint64 // bytes of output up to now, over all boots
	gen      int    // number of rotations
	closed   bool
	changed  chan struct{} // closed and replaced at each change
	buf      []byte
}

// Open opens the log at path, which continues behind the last complete record there.
func Open(path string) (*Log, error) {
	f, err := untrusted.Open(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	s, said := &scanner{file: f}, false
	for err == nil { // a record that a power cut has torn, and what follows it, is removed
		var r record
		r, err = s.next(MaxFile)
		said = said || r.said
	}
	if err := errors.Join(f.Truncate(s.at), f.Chmod(0o600)); err != nil {
		f.Close()
		return nil, err
	}
	l := &Log{path: path, file: f, size: s.at, position: s.position, changed: make(chan struct{})}
	if !said { // only the older file may say a position
		if h, _, err := open(path); err == nil {
			l.position = h.end()
			h.close()
		}
	}
	return l, nil
}

// wake tells all readers that something changed. l.mu is held.
func (l *Log) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Append adds data, which came at a time, to a stream. What the host has no room for is lost, but has its positions.
func (l *Log) Append(stream frame.Type, at time.Time, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	position := l.position
	l.position += uint64(len(data))
	for len(data) > 0 && !l.closed {
		n := min(len(data), maxData)
		l.buf = appendRecord(l.buf[:0], record{stream: stream, time: at, position: position, data: data[:n]})
		position, data = position+uint64(n), data[n:]
		if l.size+int64(len(l.buf)) > MaxFile && !l.rotate() {
			return
		}
		if _, err := l.file.Write(l.buf); err != nil {
			l.file.Truncate(l.size) // a part of a record would end the file for its readers
			return
		}
		l.size += int64(len(l.buf))
	}
	l.wake()
}

// rotate begins a new file, and reports whether that was possible. l.mu is held.
func (l *Log) rotate() bool {
	older := l.path + ".1"
	err := os.Rename(l.path, older)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // something else has the name
		if untrusted.RemoveAll(older) != nil || os.Rename(l.path, older) != nil {
			return false
		}
	}
	f, err := untrusted.Create(l.path, 0o600)
	if err != nil {
		return false
	}
	l.file.Close()
	l.file, l.size, l.gen = f, 0, l.gen+1
	return true
}

// CopyTo copies the log to path, where none may be. Its directory must be one that nobody else changes.
func (l *Log) CopyTo(path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, more := range []string{".1", ""} {
		from, err := untrusted.Open(l.path+more, os.O_RDONLY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		to, err := untrusted.Create(path+more, 0o600)
		if err == nil {
			_, err = io.Copy(to, io.LimitReader(from, 2*MaxFile))
			err = errors.Join(err, to.Sync(), to.Close())
		}
		from.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Close ends the log, and its readers when they have read all.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	l.file.Close()
	l.wake()
}

// Follow writes what v selects to w as Read does, and then what is appended, until the log is closed, ctx ends, w fails
// or v.Until is over. A reader that is more than a file behind loses what rotation removes.
func (l *Log) Follow(ctx context.Context, v banger.LogView, w io.Writer) {
	l.mu.Lock()
	h, _, err := open(l.path)
	gen := l.gen
	l.mu.Unlock()
	if err != nil || len(h.scanners) == 0 {
		return // something else has the files' names
	}
	defer h.close()
	frames, wanted := &frameWriter{w: w, stamps: v.Stamps}, windowOf(v, &h)
	s := h.scanners[len(h.scanners)-1]
	s.gen = gen
	if err := h.write(wanted, v.Tail, frames); err != nil || wanted.past {
		return
	}
	var over <-chan time.Time // the clock reaches v.Until
	if !v.Until.IsZero() {
		timer := time.NewTimer(time.Until(v.Until))
		defer timer.Stop()
		over = timer.C
	}
	l.goOn(ctx, s, wanted, frames, over)
}

// goOn writes what comes behind the scanner's place.
func (l *Log) goOn(ctx context.Context, s *scanner, wanted *window, frames *frameWriter, over <-chan time.Time) {
	last := false // what is there is all that is wanted
	for {
		limit, changed := l.limit(s)
		r, err := s.next(limit)
		switch {
		case err == nil:
			if wanted.cut(&r) && frames.write(r) != nil || wanted.past {
				return
			}
			continue
		case changed == nil: // nothing more comes in this file
			if !l.advance(s) {
				return
			}
			continue
		case last:
			return
		}
		select {
		case <-changed:
		case <-over:
			last = true
		case <-ctx.Done():
			return
		}
	}
}

// limit returns up to where the scanner's file has records, and a channel that is closed when there may be more. The
// channel is nil if the file has all that it will have.
func (l *Log) limit(s *scanner) (int64, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case s.gen != l.gen:
		return MaxFile, nil
	case l.closed:
		return l.size, nil
	}
	return l.size, l.changed
}

// advance moves the scanner to the next file that is still there. It returns false at the end of a closed log.
func (l *Log) advance(s *scanner) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	path, gen := l.path, l.gen
	switch {
	case s.gen == l.gen:
		return false
	case s.gen < l.gen-1:
		path, gen = l.path+".1", l.gen-1
	}
	f, err := untrusted.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	s.file.Close()
	s.file, s.gen = f, gen
	s.rewind()
	return true
}
