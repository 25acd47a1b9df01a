// Package frame is the format of the streams between a client, a shim and the agent: frames of one type and one
// payload. The package must not know what a stream is for, nor what the JSON of a payload means.
package frame

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"banger"
)

// Type says what a frame of an agent stream carries.
type Type byte

// The frames of an agent stream. The client first sends one Request and, for a command, then Stdin to Signal, or Taken
// for recorded output. The agent sends the others.
const (
	Request  Type = 1  // client: JSON request
	Stdin    Type = 2  // client: bytes
	StdinEOF Type = 3  // client: empty; half-close
	Size     Type = 4  // client: JSON Resize
	Signal   Type = 5  // client: one byte, the signal's number
	Response Type = 6  // agent: JSON answer of a non-exec request
	Started  Type = 7  // agent: empty; the command runs
	Stdout   Type = 8  // agent: bytes (all output when a pty is used)
	Stderr   Type = 9  // agent: bytes
	Exit     Type = 10 // agent: JSON Exit; last frame
	Error    Type = 11 // agent: JSON Error; last frame
	Taken    Type = 12 // client: a position, as a big-endian uint64; what comes before it arrived
	Screen   Type = 13 // agent: bytes that show the present screen of a session on a terminal
	Stamp    Type = 14 // agent, shim: position and time of the data in the frame that follows
)

// Max is the largest payload of a frame in bytes; a longer payload is a protocol error. MaxData is the most that a
// correct sender puts into one data frame.
const (
	Max     = 1 << 20
	MaxData = 256 << 10
)

// Header is the length in bytes of a frame's header: type, three zeros, and the payload's length as a big-endian
// uint32. The length keeps payloads aligned to 8 bytes, which an emulated guest copies ten times as fast.
const Header = 8

// Resize is the payload of Size.
type Resize struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Write writes one frame in one Write. It returns an error without writing
// when p is longer than Max.
func Write(w io.Writer, t Type, p []byte) error {
	if len(p) > Max {
		return fmt.Errorf("frame of %d bytes exceeds the limit of %d", len(p), Max)
	}
	buf := make([]byte, Header+len(p))
	PutHeader(buf, t, len(p))
	copy(buf[Header:], p)
	_, err := w.Write(buf)
	return err
}

// Data returns a writer of frames of a type to w, of at most MaxData bytes each.
func Data(w io.Writer, t Type) io.Writer { return data{w, t} }

type data struct {
	w io.Writer
	t Type
}

func (d data) Write(p []byte) (n int, err error) {
	for piece := range slices.Chunk(p, MaxData) {
		if err := Write(d.w, d.t, piece); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}

// PutHeader writes the header of a frame with n payload bytes into the first Header bytes of buf. It is for
// senders that build frames in place.
func PutHeader(buf []byte, t Type, n int) {
	binary.BigEndian.PutUint32(buf, uint32(t)<<24)
	binary.BigEndian.PutUint32(buf[4:], uint32(n))
}

// WriteJSON writes v as JSON in one frame.
func WriteJSON(w io.Writer, t Type, v any) error {
	p, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return Write(w, t, p)
}

// Reader reads frames from an untrusted peer. It holds at most one payload.
type Reader struct {
	r    io.Reader
	hdr  [Header]byte
	buf  []byte
	left int // bytes left of the frame that NextPiece is reading
}

// NewReader returns a Reader of the frames in r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next returns the next frame. It returns io.EOF at the end of a frame, and io.ErrUnexpectedEOF if the stream ends
// inside a frame. The payload is valid until the next call.
func (f *Reader) Next() (Type, []byte, error) {
	t, n, err := f.header()
	if err != nil {
		return 0, nil, err
	}
	p, err := f.payload(n)
	return t, p, err
}

// NextTo is like Next, but it passes the payload of a frame of type data to sink in pieces as they arrive, and
// returns no payload for such a frame.
func (f *Reader) NextTo(data Type, sink func([]byte)) (Type, []byte, error) {
	t, n, err := f.header()
	chunks, ok := f.r.(chunkReader)
	if err != nil || t != data || !ok {
		var p []byte
		if err == nil {
			p, err = f.payload(n)
		}
		if err == nil && t == data {
			sink(p)
			p = nil
		}
		return t, p, err
	}
	for n > 0 {
		p, err := chunks.ReadChunk(n)
		if err != nil {
			return 0, nil, insideFrame(err)
		}
		sink(p)
		n -= len(p)
	}
	return t, nil, nil
}

// NextPiece is like Next, but returns the payload of frames of type data in non-empty pieces. Each piece is valid
// until the next call. The caller must read a frame to its end with NextPiece before it calls another method.
func (f *Reader) NextPiece(data Type) (Type, []byte, error) {
	if l, ok := f.r.(interface{ Release() }); ok {
		l.Release()
	}
	for f.left == 0 {
		t, n, err := f.header()
		if err != nil {
			return 0, nil, err
		}
		if t != data {
			p, err := f.payload(n)
			return t, p, err
		}
		f.left = n
	}
	var p []byte
	var err error
	if chunks, ok := f.r.(chunkReader); ok {
		p, err = chunks.ReadChunk(f.left)
	} else {
		if f.buf == nil {
			f.buf = make([]byte, MaxData)
		}
		n := 0
		n, err = f.r.Read(f.buf[:min(f.left, cap(f.buf))])
		p = f.buf[:n]
	}
	f.left -= len(p)
	if len(p) > 0 || err == nil {
		return data, p, nil
	}
	return 0, nil, insideFrame(err)
}

// chunkReader is a reader that can lend its own buffers.
type chunkReader interface {
	ReadChunk(max int) ([]byte, error)
}

func (f *Reader) header() (Type, int, error) {
	if _, err := io.ReadFull(f.r, f.hdr[:]); err != nil {
		return 0, 0, err
	}
	n := int(binary.BigEndian.Uint32(f.hdr[4:]))
	if n > Max {
		return 0, 0, banger.Errorf(banger.CodeGuest, "peer sent a frame of %d bytes, over the limit of %d", n, Max)
	}
	if f.hdr[1]|f.hdr[2]|f.hdr[3] != 0 {
		return 0, 0, banger.Errorf(banger.CodeGuest, "peer sent a frame that starts with % x", f.hdr[:4])
	}
	return Type(f.hdr[0]), n, nil
}

func (f *Reader) payload(n int) ([]byte, error) {
	if cap(f.buf) < n {
		f.buf = make([]byte, max(n, 2*cap(f.buf)))
	}
	p := f.buf[:n]
	if _, err := io.ReadFull(f.r, p); err != nil {
		return nil, insideFrame(err)
	}
	return p, nil
}

// insideFrame turns io.EOF into io.ErrUnexpectedEOF for an end inside a frame.
func insideFrame(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
