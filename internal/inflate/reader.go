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

// A Reader returns the decoded bytes of a gzip stream or of a DEFLATE stream. It must be used by
// one goroutine at a time. It uses about 400 KiB until it is closed.
type Reader struct {
	d    *decoder // nil after Close
	gzip bool
	at   int
	size uint32 // bytes of the member so far, modulo 2^32
	out  []byte // decoded bytes that were not returned yet
	err  error  // to return after out
}

// NewReader returns a Reader of the gzip stream (RFC 1952) in r: the joined contents of one or more
// members, up to the end of r. It reads nothing before the first Read. The caller must close the
// Reader.
func NewReader(r io.Reader) *Reader {
	return newReader(r, decoders.Get().(*decoder), atFirstHeader)
}

// NewFlate returns a Reader of one stream of raw DEFLATE (RFC 1951) at the start of r. The Reader
// may also read bytes after the stream from r; they are lost. The caller must close the Reader.
func NewFlate(r io.Reader) *Reader {
	return newReader(r, decoders.Get().(*decoder), inStream)
}

func newReader(r io.Reader, d *decoder, at int) *Reader {
	d.reset(r)
	d.begin()
	return &Reader{d: d, gzip: at != inStream, at: at}
}

// Read copies decoded bytes into p, as io.Reader. An error comes after all bytes that precede it,
// and is then returned at every call: ErrHeader, ErrCorrupt, io.ErrUnexpectedEOF if the input ends
// too early or is empty, or an error of the underlying reader.
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

// Close makes the buffers available to other Readers. It does not close the underlying reader.
// Later calls of other methods return fs.ErrClosed. Close returns nil.
func (z *Reader) Close() error {
	if z.d == nil {
		return nil
	}
	z.d.reset(nil)
	decoders.Put(z.d)
	z.d, z.out, z.err = nil, nil, fs.ErrClosed
	return nil
}

// decode decodes the next run of output.
func (z *Reader) decode() {
	start := z.d.slide()
	for z.err == nil && !z.d.full() {
		z.err = z.step()
	}
	z.out = z.d.out[start:z.d.wp]
}

// step decodes one part of the stream, or as much of it as fits into the run.
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
