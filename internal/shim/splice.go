package shim

import (
	"context"
	"io"
	"net"
	"sync"

	"banger"
)

// Splice copies between a and b in both directions, passing half-closes on, and
// closes both when both directions have ended, one of them can be read no more,
// or ctx is done. A side that takes no more data may still have some to give.
func Splice(ctx context.Context, a, b net.Conn) {
	closeBoth := func() { a.Close(); b.Close() }
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	var wg sync.WaitGroup
	pipe := func(dst, src net.Conn) {
		readErr, writeErr := copyAll(dst, src)
		if writeErr != nil {
			return
		}
		half, ok := dst.(interface{ CloseWrite() error })
		if readErr != nil || !ok {
			closeBoth()
			return
		}
		half.CloseWrite()
	}
	wg.Go(func() { pipe(a, b) })
	wg.Go(func() { pipe(b, a) })
	wg.Wait()
	closeBoth()
}

// reader reads into a buffer that begins small, since most streams carry little. One that
// is filled gives way to one as long as the longest payload of the agent's channel: each
// payload costs a guest a frame.
type reader struct {
	small *smallBuffer
	large *largeBuffer
}

type (
	smallBuffer [16 << 10]byte
	largeBuffer [banger.FrameHeader + banger.MaxData]byte
)

var (
	smallBuffers = sync.Pool{New: func() any { return new(smallBuffer) }}
	largeBuffers = sync.Pool{New: func() any { return new(largeBuffer) }}
)

func newReader() *reader { return &reader{small: smallBuffers.Get().(*smallBuffer)} }

// read returns what src gives, valid until the next call.
func (r *reader) read(src io.Reader) ([]byte, error) {
	if r.large != nil {
		n, err := src.Read(r.large[:])
		return r.large[:n], err
	}
	n, err := src.Read(r.small[:])
	if n == len(r.small) {
		r.large = largeBuffers.Get().(*largeBuffer)
	}
	return r.small[:n], err
}

func (r *reader) close() {
	smallBuffers.Put(r.small)
	if r.large != nil {
		largeBuffers.Put(r.large)
	}
}

// lender is a stream of the agent, which needs no buffer of ours.
type lender interface {
	ReadChunk(max int) ([]byte, error)
	Release()
}

// copyAll copies until src ends or one side fails, and tells which.
func copyAll(dst io.Writer, src io.Reader) (readErr, writeErr error) {
	next, release := lend(src)
	defer release()
	for {
		p, err := next()
		if len(p) > 0 {
			if _, werr := dst.Write(p); werr != nil {
				return nil, werr
			}
		}
		if err == io.EOF {
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
	}
}

// lend returns a function that reads from src into a buffer which is valid until
// the next call, and one that gives the buffer back at the end.
func lend(src io.Reader) (next func() ([]byte, error), release func()) {
	if l, ok := src.(lender); ok {
		return func() ([]byte, error) {
			l.Release()
			return l.ReadChunk(banger.MaxFrame)
		}, l.Release
	}
	r := newReader()
	return func() ([]byte, error) { return r.read(src) }, r.close
}
