//go:build (amd64 || arm64) && !banger_noinflate

package inflate

import (
	"io"
	"io/fs"
	"sync"
)

// What comes next in the input.
const (
	atFirstHeader = iota
	atHeader
	inStream
	atTrailer
)

var decoders = sync.Pool{New: func() any { return newDecoder() }}

// A Reader gives the decoded bytes of a gzip stream or of a DEFLATE stream. It
// is for one goroutine at a time and holds about 400 KiB until it is closed.
type Reader struct {
	d    *decoder // nil once closed
	gzip bool
	at   int
	size uint32 // bytes of the member so far, modulo 2^32
	out  []byte // decoded and not yet given
	err  error  // to give after out
}

// NewReader decodes the gzip stream (RFC 1952) in r: one member or more, whose
// contents are joined, up to the end of r. Nothing is read before the first call
// that wants output. The Reader has to be closed.
func NewReader(r io.Reader) *Reader {
	return newReader(r, decoders.Get().(*decoder), atFirstHeader)
}

// NewFlate decodes one stream of raw DEFLATE (RFC 1951) at the start of r. Bytes
// after it may have been read from r too; they are lost. The Reader has to be
// closed.
func NewFlate(r io.Reader) *Reader {
	return newReader(r, decoders.Get().(*decoder), inStream)
}

func newReader(r io.Reader, d *decoder, at int) *Reader {
	d.reset(r)
	d.begin()
	return &Reader{d: d, gzip: at != inStream, at: at}
}

// Read copies decoded bytes into p, as io.Reader. Errors come after all bytes that
// precede them, and stay: ErrHeader, ErrCorrupt, io.ErrUnexpectedEOF if the input
// ends too early (also if it is empty), and what the underlying reader returns.
func (z *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(z.out) == 0 && z.err == nil {
		z.decode()
	}
	if len(z.out) == 0 {
		return 0, z.err
	}
	n := copy(p, z.out)
	z.out = z.out[n:]
	return n, nil
}

// Close lets other Readers use the buffers; it does not close the underlying
// reader. Any later call but Close fails with fs.ErrClosed. It returns nil.
func (z *Reader) Close() error {
	if z.d == nil {
		return nil
	}
	z.d.reset(nil)
	decoders.Put(z.d)
	z.d, z.out, z.err = nil, nil, fs.ErrClosed
	return nil
}

// decode makes the next run of output.
func (z *Reader) decode() {
	start := z.d.slide()
	for z.err == nil && !z.d.full() {
		z.err = z.step()
	}
	z.out = z.d.out[start:z.d.wp]
}

// step decodes one part of the stream, or as much of it as the run can take.
func (z *Reader) step() error {
	switch z.at {
	case atFirstHeader, atHeader:
		if err := z.d.header(z.at == atFirstHeader); err != nil {
			return err
		}
		z.d.begin()
		z.at, z.size = inStream, 0
	case inStream:
		before := z.d.wp
		done, err := z.d.inflate()
		z.size += uint32(z.d.wp - before)
		if err != nil {
			return err
		}
		if done {
			z.at = atTrailer
		}
	case atTrailer:
		if !z.gzip {
			return io.EOF
		}
		z.at = atHeader
		return z.d.trailer(z.size)
	}
	return nil
}
