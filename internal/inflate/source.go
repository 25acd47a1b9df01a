//go:build (amd64 || arm64) && !banger_noinflate

package inflate

import (
	"errors"
	"io"
)

const inSize = 64 << 10

// A source is buffered input. It reads only if its buffer is empty, so it never waits for bytes
// that the stream does not need.
type source struct {
	r    io.Reader
	buf  []byte // inSize bytes; [pos:end] are not used yet
	pos  int
	end  int
	base int64 // offset of buf[0] in the input
	err  error // of r, after the bytes in the buffer
}

var errRead = errors.New("inflate: the reader returned an impossible count")

func (s *source) reset(r io.Reader) {
	*s = source{r: r, buf: s.buf}
}

// offset returns how many bytes of the input are used.
func (s *source) offset() int64 { return s.base + int64(s.pos) }

// fill puts at least one byte into the empty buffer. Its errors are those of r; at the end of the
// input that is io.EOF.
func (s *source) fill() error {
	s.base += int64(s.end)
	s.pos, s.end = 0, 0
	for range 100 {
		if s.err != nil {
			return s.err
		}
		n, err := s.r.Read(s.buf)
		if n < 0 || n > len(s.buf) {
			n, err = 0, errRead
		}
		s.end, s.err = n, err
		if n > 0 {
			return nil
		}
	}
	if s.err == nil {
		s.err = io.ErrNoProgress
	}
	return s.err
}

// ReadByte returns the next byte. Its errors are those of fill.
func (s *source) ReadByte() (byte, error) {
	if s.pos == s.end {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	b := s.buf[s.pos]
	s.pos++
	return b, nil
}

// Read returns bytes as io.Reader, from the buffer if it is not empty.
func (s *source) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if s.pos == s.end {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.buf[s.pos:s.end])
	s.pos += n
	return n, nil
}

// full fills p. It returns io.ErrUnexpectedEOF if the input ends before that.
func (s *source) full(p []byte) error {
	_, err := io.ReadFull(s, p)
	return noEOF(err)
}

// skip drops n bytes. It returns io.ErrUnexpectedEOF if the input ends before that.
func (s *source) skip(n int) error {
	for n > 0 {
		if s.pos == s.end {
			if err := s.fill(); err != nil {
				return noEOF(err)
			}
		}
		k := min(n, s.end-s.pos)
		s.pos += k
		n -= k
	}
	return nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
