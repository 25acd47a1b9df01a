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

// A Reader returns the decoded bytes of a gzip stream or of a DEFLATE stream. It must be used by
// one goroutine at a time.
type Reader struct {
	open func() (io.Reader, error)
	r    io.Reader
	err  error
}

// NewReader returns a Reader of the gzip stream (RFC 1952) in r: the joined contents of one or more
// members, up to the end of r. The caller must close the Reader.
func NewReader(r io.Reader) *Reader {
	return &Reader{open: func() (io.Reader, error) {
		z, err := gzip.NewReader(r)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return z, err
	}}
}

// NewFlate returns a Reader of one stream of raw DEFLATE (RFC 1951) at the start of r. The caller
// must close the Reader.
func NewFlate(r io.Reader) *Reader {
	return &Reader{open: func() (io.Reader, error) { return flate.NewReader(r), nil }}
}

// Read copies decoded bytes into p, as io.Reader. Its errors are ErrHeader, ErrCorrupt,
// io.ErrUnexpectedEOF if the input ends too early or is empty, and those of the underlying reader.
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

// Close closes the Reader but not the underlying reader. Later calls of other methods return
// fs.ErrClosed. Close returns nil.
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
