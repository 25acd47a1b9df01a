package banger

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// FrameType says what a frame of an agent stream carries.
type FrameType byte

// The frames of an agent stream. The client sends one FrameRequest first and,
// for an exec, then FrameStdin..FrameSignal; the agent answers the rest.
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
)

// MaxFrame is the largest payload of a frame in bytes; a longer one is a
// protocol error. MaxData is the most that a well-behaved sender puts into one
// data frame.
const (
	MaxFrame = 1 << 20
	MaxData  = 64 << 10
)

// FrameHeader is the length in bytes of a frame's header: type, then the
// payload's length as a big-endian uint32.
const FrameHeader = 5

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

// PutFrameHeader writes the header of a frame with n payload bytes into the
// first FrameHeader bytes of buf, for senders that build frames in place.
func PutFrameHeader(buf []byte, t FrameType, n int) {
	buf[0] = byte(t)
	binary.BigEndian.PutUint32(buf[1:FrameHeader], uint32(n))
}

// WriteJSONFrame writes v as JSON in one frame.
func WriteJSONFrame(w io.Writer, t FrameType, v any) error {
	p, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return WriteFrame(w, t, p)
}

// FrameReader reads frames from an untrusted peer. It holds at most one
// payload, which is valid until the next call of Next.
type FrameReader struct {
	r   io.Reader
	hdr [FrameHeader]byte
	buf []byte
}

// NewFrameReader returns a reader of the frames in r.
func NewFrameReader(r io.Reader) *FrameReader { return &FrameReader{r: r} }

// Next returns the next frame. At a clean end it returns io.EOF, inside a frame
// io.ErrUnexpectedEOF. The payload is not to be kept.
func (f *FrameReader) Next() (FrameType, []byte, error) {
	if _, err := io.ReadFull(f.r, f.hdr[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint32(f.hdr[1:]))
	if n > MaxFrame {
		return 0, nil, Errorf(CodeGuest, "peer sent a frame of %d bytes, over the limit of %d", n, MaxFrame)
	}
	if cap(f.buf) < n {
		f.buf = make([]byte, max(n, 2*cap(f.buf)))
	}
	p := f.buf[:n]
	if _, err := io.ReadFull(f.r, p); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return FrameType(f.hdr[0]), p, nil
}
