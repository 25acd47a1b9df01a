package archive

import (
	"encoding/json"
	"io"

	"banger"
	"banger/internal/frame"
	"banger/internal/text"
)

// Frames is a reader of the payloads of frames of one type. It ends with the frame that says that everything was
// sent. A stream that ends before that is an error.
type Frames struct {
	frames    *frame.Reader
	data, end frame.Type
	cur       []byte
	over      error
	last      []byte
}

// NewFrames returns a reader of the data frames up to a frame of type end.
func NewFrames(r *frame.Reader, data, end frame.Type) *Frames {
	return &Frames{frames: r, data: data, end: end}
}

// Last returns the payload of the end frame.
func (f *Frames) Last() []byte { return f.last }

// ReadChunk returns the next bytes. They are valid until the next call.
func (f *Frames) ReadChunk(max int) ([]byte, error) {
	if len(f.cur) == 0 {
		if f.over == nil {
			f.cur, f.over = f.piece()
		}
		if f.over != nil {
			return nil, f.over
		}
	}
	p := f.cur[:min(max, len(f.cur))]
	f.cur = f.cur[len(p):]
	return p, nil
}

// Read implements io.Reader.
func (f *Frames) Read(p []byte) (int, error) {
	b, err := f.ReadChunk(len(p))
	return copy(p, b), err
}

func (f *Frames) piece() ([]byte, error) {
	t, p, err := f.frames.NextPiece(f.data)
	switch {
	case err == io.EOF:
		return nil, banger.Errorf(banger.CodeGuest, "the other end went away in the middle of the copy")
	case err != nil:
		return nil, banger.Errorf(banger.CodeGuest, "the other end went away in the middle of the copy: %w", err)
	case t == f.data:
		return p, nil
	case t == f.end:
		f.last = append(f.last, p...)
		return nil, io.EOF
	case t == frame.Error:
		var e banger.Error
		if err := json.Unmarshal(p, &e); err != nil {
			return nil, banger.Errorf(banger.CodeGuest, "the other end sent a broken error: %w", err)
		}
		return nil, text.Error(e)
	}
	return nil, banger.Errorf(banger.CodeGuest, "the other end sent frame %d, which has no place in this copy", t)
}
