// Package stream connects a command in the guest with its clients: what a client types becomes the command's stdin, and
// what the command writes comes in pieces that suit it. Commands of one client, sessions and the main command share it.
//
// The package must not know what a client is told about the command, nor what becomes of the output.
package stream

import (
	"encoding/json"
	"io"
	"net"
	"syscall"

	"banger/internal/agent/command"
	"banger/internal/agent/vector"
	"banger/internal/frame"
)

// Target is what a client's frames are for: a *command.Process, or something with the same methods.
type Target interface {
	FeedVector(parts [][]byte) // takes stdin; it may change the elements of parts
	EndStdin()
	Resize(rows, cols uint16) error
	Signal(syscall.Signal) error
}

// lender is a stream that lends its buffers. Buffered returns how many bytes can be
// read at once; Release gives back all that was lent.
type lender interface {
	io.Reader
	ReadChunk(max int) ([]byte, error)
	Buffered() int
	Release()
}

// Begin takes what the client at conn sends, in a goroutine that ends with the client's stream. gone is closed when
// nothing more comes. over is closed when the stream has ended, also while the target takes no stdin; it is nil for a
// stream that cannot tell.
func Begin(conn net.Conn, frames *frame.Reader, to Target) (gone, over <-chan struct{}) {
	ended := make(chan struct{})
	go func() {
		take(conn, frames, to)
		close(ended)
	}()
	if c, ok := conn.(interface{ Done() <-chan struct{} }); ok {
		over = c.Done()
	}
	return ended, over
}

// take gives the target stdin, resizes and signals of the client at conn, until the client goes away. frames are those
// that the client sends.
func take(conn net.Conn, frames *frame.Reader, to Target) {
	f := &feeder{to: to}
	if s, ok := conn.(lender); ok {
		f.stream = s
		frames = frame.NewReader(f)
	}
	defer Release(conn)
	for {
		t, payload, err := frames.NextTo(frame.Stdin, f.gather)
		if err != nil {
			return
		}
		if t != frame.Stdin {
			f.flush()
		}
		switch t {
		case frame.StdinEOF:
			to.EndStdin()
		case frame.Size:
			var r frame.Resize
			if json.Unmarshal(payload, &r) == nil {
				to.Resize(r.Rows, r.Cols)
			}
		case frame.Signal:
			if len(payload) == 1 {
				to.Signal(syscall.Signal(payload[0]))
			}
		}
	}
}

// Release gives back what a stream has lent, once its reader has come to the end.
func Release(conn net.Conn) {
	if l, ok := conn.(lender); ok {
		l.Release()
	}
}

// feeder gathers what a client sends and writes it in one call, so that the guest switches to the command once for all
// that has come, not for each frame. The client's frames are read through the feeder: before a read that may wait, it
// writes everything gathered.
type feeder struct {
	stream lender // nil: the client's bytes are valid during one call only
	to     Target
	parts  [][]byte // borrowed from stream
	size   int
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
	if f.stream == nil || f.size >= command.PipeSize || len(f.parts) >= vector.Max {
		f.flush()
	}
}

// flush writes what is gathered. Once the command reads no more, that is dropped.
func (f *feeder) flush() {
	if len(f.parts) == 0 {
		return
	}
	f.to.FeedVector(f.parts)
	clear(f.parts)
	f.parts, f.size = f.parts[:0], 0
	if f.stream != nil {
		f.stream.Release()
	}
}
