// Package output is the file on the host with what a VM's main command has written: its format, its writer with two
// files of limited size, and its readers. The file is in a directory where a VMM may have set traps, so a reader
// believes nothing of it.
//
// The package must not know how the output comes from the guest, nor who reads it.
package output

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"time"

	"banger/internal/frame"
	"banger/internal/untrusted"
)

// MaxFile is the size in bytes at which a file is rotated. Two files are kept: path and path.1, which is older.
const MaxFile = 4 << 20

// A record is a header of recordHeader bytes and at most maxData bytes of output. The header is the stream (one byte),
// three zeros, the length of the output, the CRC-32C of all other bytes of the record, four zeros, and the time in
// nanoseconds of the Unix epoch. Integers are big-endian. A record whose CRC is wrong was not written completely.
const (
	recordHeader = 24
	maxData      = 32 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is one record of a file.
type record struct {
	stream frame.Type // frame.Stdout or frame.Stderr
	time   time.Time
	data   []byte
}

// appendRecord appends the bytes of a record to b.
func appendRecord(b []byte, r record) []byte {
	at := len(b)
	b = append(b, byte(r.stream), 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.data)))
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(r.time.UnixNano()))
	b = append(b, r.data...)
	binary.BigEndian.PutUint32(b[at+8:], checksum(b[at:]))
	return b
}

// errTorn means that no complete record follows in a file.
var errTorn = errors.New("the record is not complete")

// scanner reads the records of one file.
type scanner struct {
	file *os.File
	at   int64 // where the next record begins
	gen  int   // which of a Log's files it is
	buf  [recordHeader + maxData]byte
	part []byte // the part of buf that has the bytes from at on
}

// next returns the record at s.at, and moves behind it. Its data is valid until the next call. It returns io.EOF at
// limit, and errTorn if no complete record comes before limit.
func (s *scanner) next(limit int64) (r record, err error) {
	if s.at >= limit {
		return r, io.EOF
	}
	if !s.fill(recordHeader, limit) {
		return r, errTorn
	}
	r.stream = frame.Type(s.part[0])
	size := binary.BigEndian.Uint32(s.part[4:])
	if r.stream != frame.Stdout && r.stream != frame.Stderr || size == 0 || size > maxData ||
		!s.fill(recordHeader+int(size), limit) {
		return r, errTorn
	}
	b := s.part[:recordHeader+size]
	if binary.BigEndian.Uint32(b[8:]) != checksum(b) {
		return r, errTorn
	}
	r.time, r.data = time.Unix(0, int64(binary.BigEndian.Uint64(b[16:]))), b[recordHeader:]
	s.at, s.part = s.at+int64(len(b)), s.part[len(b):]
	return r, nil
}

// checksum returns the CRC of a record, whose own four bytes count as zeros.
func checksum(b []byte) uint32 {
	sum := crc32.Update(crc32.Checksum(b[:8], castagnoli), castagnoli, make([]byte, 4))
	return crc32.Update(sum, castagnoli, b[12:])
}

// fill reads until s.part has n bytes, and returns false if there are fewer before limit.
func (s *scanner) fill(n int, limit int64) bool {
	if len(s.part) >= n {
		return true
	}
	have := copy(s.buf[:], s.part)
	room := min(int64(len(s.buf)-have), limit-s.at-int64(have))
	got, _ := s.file.ReadAt(s.buf[have:have+int(max(room, 0))], s.at+int64(have))
	s.part = s.buf[:have+got]
	return len(s.part) >= n
}

// rewind moves back to the file's first record.
func (s *scanner) rewind() { s.at, s.part = 0, nil }

// history is what the files have at one time: the older file, if it is there, and then the newer.
type history struct {
	scanners []*scanner
	limits   []int64
}

// add adds a file, which may be absent.
func (h *history) add(path string) error {
	f, err := untrusted.Open(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	h.scanners = append(h.scanners, &scanner{file: f})
	h.limits = append(h.limits, min(st.Size(), MaxFile))
	return nil
}

func (h *history) close() {
	for _, s := range h.scanners {
		s.file.Close()
	}
}

// each calls f with all records. It leaves out what follows a torn record in a file.
func (h *history) each(f func(record) error) error {
	for i, s := range h.scanners {
		s.rewind()
		for {
			r, err := s.next(h.limits[i])
			if err != nil {
				break
			}
			if err := f(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// write writes the last tail lines to w, or all if tail is negative. The lines are those of both streams together, and
// a last line without a line end counts as one.
func (h *history) write(tail int, w *frameWriter) error {
	skip := 0 // this many lines
	if tail >= 0 {
		lines, open := 0, false
		err := h.each(func(r record) error {
			lines += bytes.Count(r.data, []byte{'\n'})
			open = r.data[len(r.data)-1] != '\n'
			return nil
		})
		if err != nil {
			return err
		}
		if open {
			lines++
		}
		skip = max(lines-tail, 0)
		if skip == lines {
			return nil
		}
	}
	return h.each(func(r record) error {
		for ; skip > 0; skip-- {
			end := bytes.IndexByte(r.data, '\n')
			if end < 0 {
				return nil
			}
			r.data = r.data[end+1:]
		}
		return w.write(r)
	})
}

// frameWriter writes records as frames of package frame, without their times.
type frameWriter struct {
	w   io.Writer
	buf []byte
}

func (f *frameWriter) write(r record) error {
	if len(r.data) == 0 {
		return nil
	}
	f.buf = append(f.buf[:0], make([]byte, frame.Header)...)
	frame.PutHeader(f.buf, r.stream, len(r.data))
	f.buf = append(f.buf, r.data...)
	_, err := f.w.Write(f.buf)
	return err
}

// maxTries bounds how often Read opens files that are always rotated meanwhile.
const maxTries = 10

// Exists reports whether there is output at path, even if it is empty.
func Exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Read writes the last tail lines of the output at path to w, or all if tail is negative, as frames of frame.Stdout and
// frame.Stderr. A Log may write at the same time.
func Read(path string, tail int, w io.Writer) error {
	for tries := 1; ; tries++ {
		h, whole, err := open(path)
		if err != nil {
			return err
		}
		if whole || tries == maxTries {
			defer h.close()
			return h.write(tail, &frameWriter{w: w})
		}
		h.close()
	}
}

// open opens both files. whole is false if they were rotated meanwhile.
func open(path string) (h history, whole bool, err error) {
	before, _ := os.Lstat(path)
	if err = errors.Join(h.add(path+".1"), h.add(path)); err != nil {
		h.close()
		return h, false, err
	}
	after, _ := os.Lstat(path)
	return h, before == nil && after == nil || before != nil && after != nil && os.SameFile(before, after), nil
}
