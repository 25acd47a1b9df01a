//go:build !(amd64 || arm64) || banger_noinflate

package inflate

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
)

// A Reader gives the decoded bytes of a gzip stream or of a DEFLATE stream. It is
// for one goroutine at a time.
type Reader struct {
	open func() (io.Reader, error)
	r    io.Reader
	err  error
}

// NewReader decodes the gzip stream (RFC 1952) in r: one member or more, whose
// contents are joined, up to the end of r. The Reader has to be closed.
func NewReader(r io.Reader) *Reader {
	return &Reader{open: func() (io.Reader, error) {
		z, err := gzip.NewReader(r)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return z, err
	}}
}

// NewFlate decodes one stream of raw DEFLATE (RFC 1951) at the start of r. The Reader
// has to be closed.
func NewFlate(r io.Reader) *Reader {
	return &Reader{open: func() (io.Reader, error) { return flate.NewReader(r), nil }}
}

// Read copies decoded bytes into p, as io.Reader. Errors are ErrHeader, ErrCorrupt,
// io.ErrUnexpectedEOF if the input ends too early (also if it is empty), and what
// the underlying reader returns.
func (z *Reader) Read(p []byte) (int, error) {
	if z.r == nil && z.err == nil {
		z.r, z.err = z.open()
		z.err = translate(z.err)
	}
	if z.err != nil {
		return 0, z.err
	}
	n, err := z.r.Read(p)
	z.err = translate(err)
	return n, z.err
}

// Close makes any later call but Close fail with fs.ErrClosed. It does not close the
// underlying reader. It returns nil.
func (z *Reader) Close() error {
	z.r, z.err = nil, fs.ErrClosed
	return nil
}

func translate(err error) error {
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	switch {
	case err == gzip.ErrHeader:
		return ErrHeader
	case err == gzip.ErrChecksum, corrupt:
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}
