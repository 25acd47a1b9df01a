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

type spliceBuffer [64 << 10]byte

var spliceBuffers = sync.Pool{New: func() any { return new(spliceBuffer) }}

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
	buf := spliceBuffers.Get().(*spliceBuffer)
	return func() ([]byte, error) {
		n, err := src.Read(buf[:])
		return buf[:n], err
	}, func() { spliceBuffers.Put(buf) }
}
