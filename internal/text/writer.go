package text

import (
	"io"
	"unicode/utf8"
)

// Writer shows a stream on a terminal: what passes is printable text, tabs and line ends. Colours
// (ECMA-48, 8.3.117) and the return before a line end are left out, as consoles are full of them;
// all else is shown by its number. A character or colour may come in several writes; Flush ends
// the last one.
type Writer struct {
	w    io.Writer
	rest []byte // the beginning of a character or colour
}

// NewWriter returns a Writer that writes to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// maxColour is the most bytes of a sequence that is left out.
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

// Flush writes what is left of the stream.
func (t *Writer) Flush() error {
	var out []byte
	for len(t.rest) > 0 {
		r, n := utf8.DecodeRune(t.rest)
		out, t.rest = append(out, shown(r, string(t.rest[:n]))...), t.rest[n:]
	}
	_, err := t.w.Write(out)
	return err
}

// next returns how the beginning of in is shown, and its length; 0 when more must come.
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

// colour returns the length of the colour at the beginning of in, 0 for anything else. It is not
// whole when more may come that makes it one.
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
