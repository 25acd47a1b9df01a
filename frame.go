package banger

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// FrameType says what a frame of an agent stream carries.
type FrameType byte

// The frames of an agent stream. The client first sends one FrameRequest and, for an exec, then FrameStdin to
// FrameSignal, or FrameTaken for recorded output. The agent sends the others.
const (
	FrameRequest  FrameType = 1  // client: JSON request
	FrameStdin    FrameType = 2  // client: bytes
	FrameStdinEOF FrameType = 3  // client: empty; half-close
	FrameResize   FrameType = 4  // client: JSON Resize
	FrameSignal   FrameType = 5  // client: one byte, the signal's number
	FrameResponse FrameType = 6  // agent: JSON answer of a non-exec request
	FrameStarted  FrameType = 7  // agent: empty; the command runs
	FrameStdout   FrameType = 8  // agent: bytes (all output when a pty is used)
	FrameStderr   FrameType = 9  // agent: bytes
	FrameExit     FrameType = 10 // agent: JSON Exit; last frame
	FrameError    FrameType = 11 // agent: JSON Error; last frame
	FrameTaken    FrameType = 12 // client: a position, as a big-endian uint64; what comes before it arrived
)

// MaxFrame is the largest payload of a frame in bytes; a longer payload is a protocol error. MaxData is the most that
// a correct sender puts into one data frame.
const (
	MaxFrame = 1 << 20
	MaxData  = 256 << 10
)

// FrameHeader is the length in bytes of a frame's header: type, three zeros, and the payload's length as a big-endian
// uint32. The length keeps payloads aligned to 8 bytes, which an emulated guest copies ten times as fast.
const FrameHeader = 8

// Resize is the payload of FrameResize.
type Resize struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// WriteFrame writes one frame in one Write. It returns an error without writing
// when p is longer than MaxFrame.
func WriteFrame(w io.Writer, t FrameType, p []byte) error {
	if len(p) > MaxFrame {
		return fmt.Errorf("frame of %d bytes exceeds the limit of %d", len(p), MaxFrame)
	}
	buf := make([]byte, FrameHeader+len(p))
	PutFrameHeader(buf, t, len(p))
	copy(buf[FrameHeader:], p)
	_, err := w.Write(buf)
	return err
}

// PutFrameHeader writes the header of a frame with n payload bytes into the first FrameHeader bytes of buf. It is for
// senders that build frames in place.
func PutFrameHeader(buf []byte, t FrameType, n int) {
	binary.BigEndian.PutUint32(buf, uint32(t)<<24)
	binary.BigEndian.PutUint32(buf[4:], uint32(n))
}

// WriteJSONFrame writes v as JSON in one frame.
func WriteJSONFrame(w io.Writer, t FrameType, v any) error {
	p, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return WriteFrame(w, t, p)
}

// FrameReader reads frames from an untrusted peer. It holds at most one payload.
type FrameReader struct {
	r    io.Reader
	hdr  [FrameHeader]byte
	buf  []byte
	left int // bytes left of the frame that NextPiece is reading
}

// NewFrameReader returns a FrameReader of the frames in r.
func NewFrameReader(r io.Reader) *FrameReader { return &FrameReader{r: r} }

// Next returns the next frame. It returns io.EOF at the end of a frame, and io.ErrUnexpectedEOF if the stream ends
// inside a frame. The payload is valid until the next call.
func (f *FrameReader) Next() (FrameType, []byte, error) {
	t, n, err := f.header()
	if err != nil {
		return 0, nil, err
	}
	p, err := f.payload(n)
	return t, p, err
}

// NextTo is like Next, but it passes the payload of a frame of type data to sink in pieces as they arrive, and
// returns no payload for such a frame.
func (f *FrameReader) NextTo(data FrameType, sink func([]byte)) (FrameType, []byte, error) {
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
func (f *FrameReader) NextPiece(data FrameType) (FrameType, []byte, error) {
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

func (f *FrameReader) header() (FrameType, int, error) {
	if _, err := io.ReadFull(f.r, f.hdr[:]); err != nil {
		return 0, 0, err
	}
	n := int(binary.BigEndian.Uint32(f.hdr[4:]))
	if n > MaxFrame {
		return 0, 0, Errorf(CodeGuest, "peer sent a frame of %d bytes, over the limit of %d", n, MaxFrame)
	}
	if f.hdr[1]|f.hdr[2]|f.hdr[3] != 0 {
		return 0, 0, Errorf(CodeGuest, "peer sent a frame that starts with % x", f.hdr[:4])
	}
	return FrameType(f.hdr[0]), n, nil
}

func (f *FrameReader) payload(n int) ([]byte, error) {
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
