// Package output is the file on the host with what a VM's main command has written: its format, its writer with two
// files of limited size, and its readers. The file is in a directory where a VMM may have set traps, so a reader
// believes nothing of it.
//
// The package must not know how the output comes from the guest, nor who reads it.
package output

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"time"

	"banger/internal/frame"
)

// MaxFile is the size in bytes at which a file is rotated. Two files are kept: path and path.1, which is older.
const MaxFile = 4 << 20

// A record is a header of recordHeader bytes and at most maxData bytes of output. The header is the stream (one byte),
// three bytes of the position, the length of the output, the CRC-32C of all other bytes of the record, four more bytes
// of the position, and the time in nanoseconds of the Unix epoch. Integers are big-endian. A record whose CRC is wrong
// was not written completely.
//
// The position's seven bytes are a number that is one more than the bytes written before. An earlier banger writes
// zeros there, which say no position, and reads any bytes.
const (
	recordHeader = 24
	maxData      = 32 << 10
	maxPosition  = 1<<56 - 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is one record of a file.
type record struct {
	stream   frame.Type // frame.Stdout or frame.Stderr
	time     time.Time
	position uint64 // how many bytes of output come before
	said     bool   // the record itself says its position
	data     []byte
}

// appendRecord appends the bytes of a record to b.
func appendRecord(b []byte, r record) []byte {
	at, position := len(b), min(r.position, maxPosition)+1
	b = binary.BigEndian.AppendUint32(b, uint32(r.stream)<<24|uint32(position>>32))
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.data)))
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(position))
	b = binary.BigEndian.AppendUint64(b, uint64(r.time.UnixNano()))
	b = append(b, r.data...)
	binary.BigEndian.PutUint32(b[at+8:], checksum(b[at:]))
	return b
}

// errTorn means that no complete record follows in a file.
var errTorn = errors.New("the record is not complete")

// scanner reads the records of one file.
type scanner struct {
	file     *os.File
	at       int64  // where the next record begins
	position uint64 // the position of the next record, unless that says another
	gen      int    // which of a Log's files it is
	buf      [recordHeader + maxData]byte
	part     []byte // the part of buf that has the bytes from at on
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
	r.position = s.position
	if next := uint64(binary.BigEndian.Uint32(b)&0xffffff)<<32 | uint64(binary.BigEndian.Uint32(b[12:])); next > 0 {
		r.position, r.said = next-1, true
	}
	s.at, s.position, s.part = s.at+int64(len(b)), r.position+uint64(size), s.part[len(b):]
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
