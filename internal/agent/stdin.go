package agent

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
)

// lender is a stream that lends its buffers and tells how many bytes can be read
// at once.
type lender interface {
	io.Reader
	ReadChunk(max int) ([]byte, error)
	Buffered() int
	Release()
}

// feeder gathers what a client sends to a command's pipe and writes it in one
// call, so that the guest switches to the command once for all that has come,
// not for each frame. It is the reader below the client's frames: before a read
// that may wait, everything gathered is written.
type feeder struct {
	stream lender
	pipe   *os.File
	parts  [][]byte // borrowed from stream
	size   int
}

// clientFrames returns the reader of what the client sends to p, the sink of its
// stdin, and what is to be called before a frame of another kind is obeyed.
func clientFrames(conn net.Conn, frames *banger.FrameReader, p *process) (r *banger.FrameReader, feed func([]byte), flush func()) {
	s, ok := conn.(lender)
	if !ok || p.stdin == nil || p.tty != nil {
		return frames, p.feed, func() {}
	}
	f := &feeder{stream: s, pipe: p.stdin}
	return banger.NewFrameReader(f), f.gather, f.flush
}

func (f *feeder) Read(p []byte) (int, error) {
	if f.stream.Buffered() < len(p) {
		f.flush()
	}
	return f.stream.Read(p)
}

func (f *feeder) ReadChunk(max int) ([]byte, error) {
	if f.stream.Buffered() == 0 {
		f.flush()
	}
	return f.stream.ReadChunk(max)
}

func (f *feeder) gather(b []byte) {
	f.parts = append(f.parts, b)
	f.size += len(b)
	if f.size >= pipeSize || len(f.parts) >= maxPieces {
		f.flush()
	}
}

// flush writes what is gathered; once the command reads no more, it is dropped.
func (f *feeder) flush() {
	if len(f.parts) == 0 {
		return
	}
	if raw, err := f.pipe.SyscallConn(); err != nil || writeAll(raw, f.parts) != nil {
		f.pipe.Close()
	}
	clear(f.parts)
	f.parts, f.size = f.parts[:0], 0
	f.stream.Release()
}

// writeAll writes v, whose elements it changes, to a non-blocking file.
func writeAll(raw syscall.RawConn, v [][]byte) error {
	var failed error
	err := raw.Write(func(fd uintptr) bool {
		for len(v) > 0 {
			n, err := retry(unix.Writev, fd, v[:min(len(v), maxPieces)])
			if err != nil {
				failed = err
				return err != unix.EAGAIN
			}
			v = consume(v, n)
		}
		failed = nil
		return true
	})
	return errors.Join(err, failed)
}

// consume returns what is left of v behind its first n bytes.
func consume(v [][]byte, n int) [][]byte {
	for len(v) > 0 && n >= len(v[0]) {
		n -= len(v[0])
		v = v[1:]
	}
	if n > 0 {
		v[0] = v[0][n:]
	}
	return v
}
