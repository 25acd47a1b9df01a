package archive

import (
	"io"

	"golang.org/x/sys/unix"

	"banger/internal/archive/pax"
	"banger/internal/frame"
)

// output gathers a tar in one buffer and writes it when it is full: in frames or, with type 0, as it is. Files are
// read directly into the buffer.
type output struct {
	w     io.Writer
	kind  frame.Type
	buf   []byte // a frame's header and data
	n     int    // bytes of buf in use
	total int64  // bytes of tar so far
}

func newOutput(w io.Writer, kind frame.Type) *output {
	return &output{w: w, kind: kind, buf: make([]byte, frame.Header+frame.MaxData), n: frame.Header}
}

func (o *output) flush() error {
	n := o.n - frame.Header
	if n == 0 {
		return nil
	}
	from := frame.Header
	if o.kind != 0 {
		frame.PutHeader(o.buf, o.kind, n)
		from = 0
	}
	_, err := o.w.Write(o.buf[from:o.n])
	o.n = frame.Header
	return err
}

// room returns a free part of the buffer. The caller then counts what it has written there.
func (o *output) room() ([]byte, error) {
	if o.n == len(o.buf) {
		if err := o.flush(); err != nil {
			return nil, err
		}
	}
	return o.buf[o.n:], nil
}

func (o *output) took(n int) {
	o.n += n
	o.total += int64(n)
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		b, err := o.room()
		if err != nil {
			return done, err
		}
		n := copy(b, p[done:])
		o.took(n)
		done += n
	}
	return len(p), nil
}

// zeros writes n zeros.
func (o *output) zeros(n int64) error {
	for n > 0 {
		b, err := o.room()
		if err != nil {
			return err
		}
		b = b[:min(n, int64(len(b)))]
		clear(b)
		o.took(len(b))
		n -= int64(len(b))
	}
	return nil
}

// pad fills up a block.
func (o *output) pad() error { return o.zeros(-o.total & (pax.BlockSize - 1)) }

// file writes n bytes of the file fd from an offset on. If the file has fewer, zeros take their place, and short is
// the number of zeros.
func (o *output) file(fd int, offset, n int64) (short int64, err error) {
	for n > 0 {
		b, err := o.room()
		if err != nil {
			return 0, err
		}
		k, err := readAt(fd, b[:min(n, int64(len(b)))], offset)
		if err != nil {
			return 0, err
		}
		if k == 0 {
			return n, o.zeros(n)
		}
		o.took(k)
		offset, n = offset+int64(k), n-int64(k)
	}
	return 0, nil
}

// readAt reads at an offset. It returns 0 at the end of the file.
func readAt(fd int, b []byte, offset int64) (int, error) {
	for {
		n, err := unix.Pread(fd, b, offset)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}
