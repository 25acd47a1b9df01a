package agent

import (
	"io"
	"net"

	"banger/internal/agent/command"
	"banger/internal/agent/vector"
	"banger/internal/frame"
)

// lender is a stream that lends its buffers. Buffered returns how many bytes can be
// read at once; Release gives back all that was lent.
type lender interface {
	io.Reader
	ReadChunk(max int) ([]byte, error)
	Buffered() int
	Release()
}

// feeder gathers what a client sends to a command's pipe and writes it in one
// call, so that the guest switches to the command once for all that has come,
// not for each frame. The client's frames are read through the feeder: before a read
// that may wait, it writes everything gathered.
type feeder struct {
	stream lender
	p      *command.Process
	parts  [][]byte // borrowed from stream
	size   int
}

// clientFrames returns the reader of what the client sends to p, and the function
// that takes each piece of its stdin. The caller calls flush before it obeys a frame
// of another kind.
func clientFrames(conn net.Conn, frames *frame.Reader, p *command.Process) (
	r *frame.Reader, feed func([]byte), flush func(),
) {
	s, ok := conn.(lender)
	if !ok || !p.HasStdinPipe() {
		return frames, p.Feed, func() {}
	}
	f := &feeder{stream: s, p: p}
	return frame.NewReader(f), f.gather, f.flush
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
	if f.size >= command.PipeSize || len(f.parts) >= vector.Max {
		f.flush()
	}
}

// flush writes what is gathered. Once the command reads no more, that is dropped.
func (f *feeder) flush() {
	if len(f.parts) == 0 {
		return
	}
	f.p.FeedVector(f.parts)
	clear(f.parts)
	f.parts, f.size = f.parts[:0], 0
	f.stream.Release()
}
