package text

import (
	"io"
	"unicode/utf8"
)

// Writer makes a stream printable for a terminal: it writes printable text, tabs and line ends. It omits colours
// (ECMA-48, 8.3.117) and the return before a line end, because consoles contain many of them. It replaces everything
// else with its number. A character or colour may be split over several writes. Flush writes what is incomplete at
// the end.
type Writer struct {
	w    io.Writer
	rest []byte // the start of an incomplete character or colour
}

// NewWriter returns a Writer that writes to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// maxColour is the maximum length in bytes of a sequence that is omitted.
const maxColour = 32

// Write implements io.Writer.
func (t *Writer) Write(p []byte) (int, error) {
	in := append(t.rest, p...)
	out := make([]byte, 0, len(in)+16)
	for len(in) > 0 {
		text, n := next(in)
		if n == 0 {
			break
		}
		out, in = append(out, text...), in[n:]
	}
	t.rest = append([]byte(nil), in...)
	if len(out) > 0 {
		if _, err := t.w.Write(out); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Held returns how many bytes are not written yet, since they are incomplete.
func (t *Writer) Held() int { return len(t.rest) }

// Flush writes the rest of the stream.
func (t *Writer) Flush() error {
	var out []byte
	for len(t.rest) > 0 {
		r, n := utf8.DecodeRune(t.rest)
		out, t.rest = append(out, shown(r, string(t.rest[:n]))...), t.rest[n:]
	}
	_, err := t.w.Write(out)
	return err
}

// next returns the printable form of the start of in, and how many bytes of in it stands for. n is 0 if more bytes
// are needed.
func next(in []byte) (text string, n int) {
	switch in[0] {
	case '\n', '\t':
		return string(in[:1]), 1
	case '\r':
		if len(in) == 1 {
			return "", 0
		}
		if in[1] == '\n' {
			return "", 1
		}
	case 0x1b:
		if n, whole := colour(in); n > 0 {
			return "", n
		} else if !whole {
			return "", 0
		}
	}
	if !utf8.FullRune(in) {
		return "", 0
	}
	r, n := utf8.DecodeRune(in)
	return shown(r, string(in[:n])), n
}

// colour returns the length of the colour at the start of in, or 0 for anything else. whole is false if more bytes
// are needed to decide.
func colour(in []byte) (n int, whole bool) {
	for i, c := range in[:min(len(in), maxColour)] {
		switch {
		case i == 0, i == 1 && c == '[', i > 1 && (c >= '0' && c <= '9' || c == ';' || c == ':'):
		case i > 1 && c == 'm':
			return i + 1, true
		default:
			return 0, true
		}
	}
	return 0, len(in) >= maxColour
}
