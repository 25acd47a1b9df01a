// Package transcript stores what a session's command writes, as records that are only ever appended: stream, position,
// time and bytes. Each byte has a position, so any number of readers go on exactly where they were. The files are
// bounded; the oldest go first. A disk without room loses bytes, and says which, but never stops the command.
//
// The package must not know what the command is, nor how its readers are reached. Root in the guest may write anything
// into the files, so a reader believes nothing of them.
package transcript

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"banger/internal/frame"
)

// Head is the length in bytes of a record's head, which comes before its data: the stream (one byte), a byte that marks
// a record, two zeros, the length of the data, the position of its first byte, and its time in nanoseconds of the Unix
// epoch. Integers are big-endian.
const Head = 24

// mark is the second byte of a record's head.
const mark = 0xb5

// SegmentSize is the maximum size in bytes of a file. The name of a file is the position of its first byte, so that the
// names are the index of a transcript.
const SegmentSize = 1 << 20

// The bytes of the last records stay in memory, so that a reader at the end reads no file, and sees what the disk has
// no room for. recordCost is what a record costs besides.
const (
	recentSize = 64 << 10
	recordCost = 80
)

// maxPosition bounds what a file may say of positions, so that no sum of them overflows.
const maxPosition = 1 << 62

// tryAgain is the pause after a write has failed before the next one is tried.
const tryAgain = time.Second

// Record is a piece of what the command wrote to one stream.
type Record struct {
	Stream   frame.Type // frame.Stdout or frame.Stderr
	Position uint64     // the number of bytes that were written before, to both streams
	Time     time.Time
	Data     []byte // at most frame.MaxData bytes
}

func (r Record) end() uint64 { return r.Position + uint64(len(r.Data)) }

// from returns the part of a record from a position on, which is not behind the record.
func (r Record) from(position uint64) Record {
	if r.Position < position {
		r.Data = r.Data[position-r.Position:]
		r.Position = position
	}
	return r
}

// putHead writes the head of a record with n bytes of data into the first Head bytes of b.
func putHead(b []byte, r Record, n int) {
	b[0], b[1], b[2], b[3] = byte(r.Stream), mark, 0, 0
	binary.BigEndian.PutUint32(b[4:], uint32(n))
	binary.BigEndian.PutUint64(b[8:], r.Position)
	binary.BigEndian.PutUint64(b[16:], uint64(r.Time.UnixNano()))
}

// parseHead returns what a head says, and the length of the data. ok is false for bytes that are no head.
func parseHead(b []byte) (r Record, n int, ok bool) {
	r.Stream = frame.Type(b[0])
	n = int(binary.BigEndian.Uint32(b[4:]))
	r.Position = binary.BigEndian.Uint64(b[8:])
	r.Time = time.Unix(0, int64(binary.BigEndian.Uint64(b[16:])))
	ok = (r.Stream == frame.Stdout || r.Stream == frame.Stderr) && b[1] == mark && b[2]|b[3] == 0 &&
		n > 0 && n <= frame.MaxData && r.Position < maxPosition
	return r, n, ok
}

// segment is one file.
type segment struct {
	first uint64 // its name: the position of its first byte
	size  int64
}

// Transcript is what one command has written.
type Transcript struct {
	dir   string
	quota *Quota

	mu       sync.Mutex
	segments []segment // the oldest first
	file     *os.File  // the last segment; nil if nothing is appended to it
	again    time.Time // no file is begun before
	settled  bool      // the end is known
	recent   []Record  // the last ones
	cost     int       // of recent
	end      uint64    // the number of bytes that were written in all
	lost     uint64    // bytes for which the disk had no room, since Open
	closed   bool
	changed  chan struct{} // closed and replaced at each change
}

// Open opens the transcript in a directory, which it makes. It counts for the quota until Remove.
func Open(dir string, quota *Quota) (*Transcript, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	t := &Transcript{dir: dir, quota: quota, changed: make(chan struct{})}
	for _, e := range entries {
		first, err := strconv.ParseUint(e.Name(), 16, 64)
		if err != nil || first >= maxPosition || e.Name() != segmentName(first) || !e.Type().IsRegular() {
			continue
		}
		if st, err := e.Info(); err == nil {
			t.segments = append(t.segments, segment{first, min(st.Size(), SegmentSize)})
		}
	}
	slices.SortFunc(t.segments, func(a, b segment) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	quota.add(t)
	return t, nil
}

// segmentName returns the name of the file whose first byte has a position. Names sort as positions do.
func segmentName(first uint64) string { return fmt.Sprintf("%016x", first) }

func (t *Transcript) path(s segment) string { return filepath.Join(t.dir, segmentName(s.first)) }

// settle finds the end, and cuts off what a power cut has left of a record. t.mu is held.
func (t *Transcript) settle() {
	if t.settled || len(t.segments) == 0 {
		t.settled = true
		return
	}
	t.settled = true
	last := &t.segments[len(t.segments)-1]
	t.end = last.first
	f, err := os.OpenFile(t.path(*last), os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	r := scanner{file: f, limit: last.size}
	for {
		rec, err := r.next()
		if err != nil || rec.Position < t.end {
			break
		}
		t.end = rec.end()
	}
	if r.at < last.size && f.Truncate(r.at) == nil {
		last.size = r.at
	}
}

// Append adds a record with the bytes behind the first Head bytes of buf, which it overwrites. It returns the position
// behind the record. The bytes are lost if the disk has no room for them.
func (t *Transcript) Append(stream frame.Type, at time.Time, buf []byte) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle()
	if t.needsFile(len(buf)) {
		t.mu.Unlock()
		t.quota.begin(t, len(buf))
		t.mu.Lock()
	}
	r := Record{stream, t.end, at, buf[Head:]}
	putHead(buf, r, len(r.Data))
	if !t.write(buf) {
		t.lost += uint64(len(r.Data))
	}
	t.remember(r)
	t.end = r.end()
	t.wake()
	return t.end
}

// needsFile reports whether n bytes need a new file, and whether it is time to try that. t.mu is held.
func (t *Transcript) needsFile(n int) bool {
	full := t.file == nil || t.segments[len(t.segments)-1].size+int64(n) > SegmentSize
	return full && !t.closed && !time.Now().Before(t.again)
}

// begin begins a new file. t.mu is held.
func (t *Transcript) begin() {
	if t.file != nil {
		t.file.Close()
		t.file = nil
	}
	s := segment{first: t.end}
	f, err := os.OpenFile(t.path(s), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		t.again = time.Now().Add(tryAgain)
		return
	}
	if n := len(t.segments); n > 0 && t.segments[n-1].first == s.first { // it was empty
		t.segments = t.segments[:n-1]
	}
	t.file, t.segments = f, append(t.segments, s)
}

// write writes a record to the file, and reports whether there was room for it. t.mu is held.
func (t *Transcript) write(record []byte) bool {
	if t.file == nil || t.closed {
		return false
	}
	s := &t.segments[len(t.segments)-1]
	if s.size+int64(len(record)) > SegmentSize {
		return false
	}
	if _, err := t.file.Write(record); err != nil { // what was written of it would end the file for its readers
		t.file.Truncate(s.size)
		return false
	}
	s.size += int64(len(record))
	return true
}

// remember keeps a record in memory. t.mu is held.
func (t *Transcript) remember(r Record) {
	if len(r.Data) > recentSize { // only its end fits
		r.Position += uint64(len(r.Data) - recentSize)
		r.Data = r.Data[len(r.Data)-recentSize:]
		t.recent, t.cost = nil, 0
	}
	r.Data = slices.Clone(r.Data)
	t.recent = append(t.recent, r)
	t.cost += len(r.Data) + recordCost
	for over := t.cost - recentSize - recordCost; over > 0; over = t.cost - recentSize - recordCost {
		oldest := &t.recent[0]
		if over < len(oldest.Data) { // its end still fits
			*oldest = oldest.from(oldest.Position + uint64(over))
			t.cost -= over
			continue
		}
		t.cost -= len(oldest.Data) + recordCost
		*oldest = Record{}
		t.recent = t.recent[1:]
	}
}

// wake tells all readers that something changed. t.mu is held.
func (t *Transcript) wake() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// End returns the number of bytes that were written in all.
func (t *Transcript) End() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle()
	return t.end
}

// Lost returns how many bytes the disk had no room for, since Open. Readers at the end may have got them from memory.
func (t *Transcript) Lost() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lost
}

// First returns the position of the first byte that can still be read, or the end if nothing can.
func (t *Transcript) First() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle()
	switch {
	case len(t.segments) > 0 && t.segments[0].size > 0:
		return t.segments[0].first
	case len(t.recent) > 0:
		return t.recent[0].Position
	}
	return t.end
}

// Close ends the transcript: nothing more is appended, and readers come to an end. Its files are written to the disk.
func (t *Transcript) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	t.wake()
	if t.file == nil {
		return nil
	}
	err := errors.Join(t.file.Sync(), t.file.Close())
	t.file = nil
	return err
}

// Remove closes the transcript and removes its files.
func (t *Transcript) Remove() error {
	t.Close()
	t.quota.remove(t)
	return os.RemoveAll(t.dir)
}

// held returns what the transcript takes of the disk: its last file counts as full while it grows. t.mu is held.
func (t *Transcript) held() (n int64) {
	for _, s := range t.segments {
		n += s.size
	}
	if t.file != nil {
		n += SegmentSize - t.segments[len(t.segments)-1].size
	}
	return n
}

// drop removes the oldest file, unless records are appended to it. t.mu is held.
func (t *Transcript) drop() bool {
	if len(t.segments) == 0 || len(t.segments) == 1 && t.file != nil {
		return false
	}
	t.settle()
	os.Remove(t.path(t.segments[0]))
	t.segments = slices.Clone(t.segments[1:])
	return true
}

// scanner reads the records of one file.
type scanner struct {
	file  *os.File
	at    int64 // where the next record begins
	limit int64 // where the file's records end
	buf   []byte
	from  int64 // where buf begins in the file
}

// scanSize is how much a scanner reads at once, in bytes.
const scanSize = 32 << 10

// next returns the next record, whose data is valid until the next call. It returns io.EOF at the end of the records,
// and another error at bytes that are no record.
func (s *scanner) next() (Record, error) {
	if s.at >= s.limit {
		return Record{}, io.EOF
	}
	head, err := s.bytes(Head)
	if err != nil {
		return Record{}, err
	}
	r, n, ok := parseHead(head)
	if !ok {
		return Record{}, fmt.Errorf("no record begins at byte %d of %s", s.at, s.file.Name())
	}
	whole, err := s.bytes(Head + n)
	if err != nil {
		return Record{}, err
	}
	r.Data = whole[Head:]
	s.at += int64(len(whole))
	return r, nil
}

// bytes returns n bytes from s.at on.
func (s *scanner) bytes(n int) ([]byte, error) {
	if s.at+int64(n) > s.limit {
		return nil, io.ErrUnexpectedEOF
	}
	if s.at < s.from || s.at+int64(n) > s.from+int64(len(s.buf)) {
		want := min(max(n, scanSize), int(s.limit-s.at))
		if cap(s.buf) < want {
			s.buf = make([]byte, want)
		}
		got, err := s.file.ReadAt(s.buf[:want], s.at)
		s.buf, s.from = s.buf[:got], s.at
		if got < n {
			return nil, errors.Join(io.ErrUnexpectedEOF, err)
		}
	}
	return s.buf[s.at-s.from:][:n], nil
}

// segmentAt returns the index of the file that has a position, or of the first one behind it. t.mu is held.
func (t *Transcript) segmentAt(position uint64) int {
	i := sort.Search(len(t.segments), func(i int) bool { return t.segments[i].first > position })
	return max(i-1, 0)
}
