package output

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"banger/internal/frame"
	"banger/internal/untrusted"
)

// Log writes the output of one VM. Its Append never fails, because a full host disk must not stop a guest.
type Log struct {
	mu      sync.Mutex
	path    string
	file    *os.File
	size    int64 // bytes of complete records in file
	gen     int   // number of rotations
	closed  bool
	changed chan struct{} // closed and replaced at each change
	buf     []byte
}

// Open opens the log at path, which continues behind the last complete record there.
func Open(path string) (*Log, error) {
	f, err := untrusted.Open(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	s := &scanner{file: f}
	for err == nil { // a record that a power cut has torn, and what follows it, is removed
		_, err = s.next(MaxFile)
	}
	if err := errors.Join(f.Truncate(s.at), f.Chmod(0o600)); err != nil {
		f.Close()
		return nil, err
	}
	return &Log{path: path, file: f, size: s.at, changed: make(chan struct{})}, nil
}

// wake tells all readers that something changed. l.mu is held.
func (l *Log) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Append adds data, which came at a time, to a stream. What the host has no room for is lost.
func (l *Log) Append(stream frame.Type, at time.Time, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(data) > 0 && !l.closed {
		n := min(len(data), maxData)
		l.buf = appendRecord(l.buf[:0], record{stream, at, data[:n]})
		data = data[n:]
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

// Follow writes the last tail lines to w as Read does, and then what is appended, until the log is closed, ctx ends, or
// w fails. A reader that is more than a file behind loses what rotation removes.
func (l *Log) Follow(ctx context.Context, tail int, w io.Writer) {
	l.mu.Lock()
	h, _, err := open(l.path)
	gen := l.gen
	l.mu.Unlock()
	if err != nil || len(h.scanners) == 0 {
		return // something else has the files' names
	}
	defer h.close()
	frames := &frameWriter{w: w}
	s := h.scanners[len(h.scanners)-1]
	s.gen = gen
	if err := h.write(tail, frames); err != nil {
		return
	}
	for { // s has come to the end of what there was
		limit, changed := l.limit(s)
		r, err := s.next(limit)
		if err == nil {
			if frames.write(r) != nil {
				return
			}
			continue
		}
		if changed == nil { // nothing more comes in this file
			if !l.advance(s) {
				return
			}
			continue
		}
		select {
		case <-changed:
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
