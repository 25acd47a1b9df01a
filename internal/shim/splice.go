package shim

import (
	"context"
	"io"
	"net"
	"sync"
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

var spliceBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// copyAll copies until src ends or one side fails, and tells which.
func copyAll(dst io.Writer, src io.Reader) (readErr, writeErr error) {
	buf := spliceBuffers.Get().(*[64 << 10]byte)
	defer spliceBuffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
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
