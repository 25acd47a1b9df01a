package text

import (
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON returns a JSON document with the same meaning as doc that has only printable text and line ends. Package
// encoding/json escapes only some of the characters that are not printable.
func JSON(doc []byte) []byte {
	var out []byte
	from := 0 // start of the part that was not copied yet
	for at := 0; at < len(doc); {
		r, n := utf8.DecodeRune(doc[at:])
		if r >= 0x7f && !Printable(r) { // characters below 0x7f stand between values, or are escaped
			out = append(out, doc[from:at]...)
			if r > 0xffff {
				high, low := utf16.EncodeRune(r)
				out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
			} else {
				out = fmt.Appendf(out, `\u%04x`, r)
			}
			from = at + n
		}
		at += n
	}
	if out == nil {
		return doc
	}
	return append(out, doc[from:]...)
}

// WriteJSON writes v to w as one line of JSON, or as several lines if indent is not empty.
func WriteJSON(w io.Writer, v any, indent string) error {
	marshal := json.Marshal
	if indent != "" {
		marshal = func(v any) ([]byte, error) { return json.MarshalIndent(v, "", indent) }
	}
	doc, err := marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(JSON(doc), '\n'))
	return err
}
