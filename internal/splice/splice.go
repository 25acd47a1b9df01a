// Package splice joins two connections of a process and thereby connects their far ends. It must not know what they
// carry.
package splice

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"banger/internal/frame"
	"banger/internal/network"
)

// goneTime is how long one end of a splice may take to end after the other has gone.
const goneTime = 10 * time.Second

// Copy copies between a and b in both directions and passes half-closes on. It closes both when both directions have
// ended, when one of them cannot be read any more, when ctx is done, or 10 s after the peer of one has gone. A side
// that takes no more data may still send some.
func Copy(ctx context.Context, a, b net.Conn) { Counted(ctx, a, b, new(atomic.Uint64)) }

// Counted is like Copy, and adds each byte to moved when it was read.
func Counted(ctx context.Context, a, b net.Conn, moved *atomic.Uint64) {
	copyBoth(ctx, a, b, goneTime, moved)
}

func copyBoth(ctx context.Context, a, b net.Conn, gone time.Duration, moved *atomic.Uint64) {
	closeBoth := func() { a.Close(); b.Close() }
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	var wg sync.WaitGroup
	ended := make(chan struct{}, 2)
	pipe := func(dst, src *network.Hangup) {
		defer func() { ended <- struct{}{} }()
		readErr, writeErr := copyAll(dst.Conn, src.Conn, moved)
		dst.Stop()
		if writeErr != nil {
			return
		}
		half, ok := dst.Conn.(interface{ CloseWrite() error })
		if readErr != nil || !ok {
			closeBoth()
			return
		}
		half.CloseWrite()
		if !src.Wait() {
			return
		}
		select {
		case <-ended: // the other direction
		case <-time.After(gone):
			closeBoth()
		}
	}
	aEnd, bEnd := &network.Hangup{Conn: a}, &network.Hangup{Conn: b}
	wg.Go(func() { pipe(aEnd, bEnd) })
	wg.Go(func() { pipe(bEnd, aEnd) })
	wg.Wait()
	closeBoth()
}

// reader reads into a buffer that is small at first, because most streams carry little. When the buffer is filled
// once, reader replaces it with one of the longest payload of the agent's channel, because each payload costs a guest
// a frame.
type reader struct {
	small *smallBuffer
	large *largeBuffer
}

type (
	smallBuffer [16 << 10]byte
	largeBuffer [frame.Header + frame.MaxData]byte
)

var (
	smallBuffers = sync.Pool{New: func() any { return new(smallBuffer) }}
	largeBuffers = sync.Pool{New: func() any { return new(largeBuffer) }}
)

func newReader() *reader { return &reader{small: smallBuffers.Get().(*smallBuffer)} }

// read returns the next data of src, valid until the next call.
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

// lender is a stream of the agent that lends its own buffers.
type lender interface {
	ReadChunk(max int) ([]byte, error)
	Release()
}

// copyAll copies until src ends or one side fails, and returns the error of the side that failed.
func copyAll(dst io.Writer, src io.Reader, moved *atomic.Uint64) (readErr, writeErr error) {
	next, release := lend(src)
	defer release()
	for {
		p, err := next()
		moved.Add(uint64(len(p)))
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

// lend returns two functions. next reads from src into a buffer that is valid until the next call. release gives the
// buffer back at the end.
func lend(src io.Reader) (next func() ([]byte, error), release func()) {
	if l, ok := src.(lender); ok {
		return func() ([]byte, error) {
			l.Release()
			return l.ReadChunk(frame.Max)
		}, l.Release
	}
	r := newReader()
	return func() ([]byte, error) { return r.read(src) }, r.close
}
