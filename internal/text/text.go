// Package text makes printable what guests, images, registries and VMMs say, before a person or
// a program reads it. Their text may hold control characters that steer a terminal, marks that
// turn its direction, characters that nobody sees, and bytes that are no text at all. All of
// these are shown by their numbers, as Go writes them: \x1b, \u202e, \U000e0041, and \xff for a
// byte that is no UTF-8.
//
// Line and Limit are for text in messages and tables, Writer is for a stream on a terminal, and
// JSON is for documents. The package must not know where text comes from or goes to.
package text

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"banger"
)

// Bounds of a text of somebody else's, in characters.
const (
	MaxError = 1024 // in an error
	maxHint  = 256
	maxCode  = 40
)

// ignorable are the characters that Unicode calls letters or marks but that are not seen
// (DerivedCoreProperties.txt, Default_Ignorable_Code_Point). The other invisible ones belong to
// the category of formats, which unicode.IsPrint excludes.
var ignorable = []*unicode.RangeTable{unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector}

// Printable reports whether r can be shown as it is. Line ends and tabs cannot.
func Printable(r rune) bool {
	switch {
	case r < utf8.RuneSelf:
		return r >= ' ' && r != 0x7f
	case unicode.In(r, ignorable...):
		return false
	}
	return unicode.IsPrint(r) || unicode.Is(unicode.Zs, r)
}

// Line returns s as one line of printable text. Line ends and tabs become spaces.
func Line(s string) string {
	if !strings.ContainsFunc(s, needsChange) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == '\n' || r == '\t' {
			b.WriteByte(' ')
		} else {
			b.WriteString(shown(r, s[:n]))
		}
		s = s[n:]
	}
	return b.String()
}

// needsChange also finds bytes that are no UTF-8, which are read as utf8.RuneError.
func needsChange(r rune) bool { return r == utf8.RuneError || !Printable(r) }

// Limit is Line for a text of any length: it returns at most max characters, the last of which
// is then "…".
func Limit(s string, max int) string {
	if len(s) > 4*max { // more bytes than max characters have
		s = s[:4*max] + " " // so that it is cut below
	}
	s = strings.TrimLeft(Line(s), " ")
	if utf8.RuneCountInString(s) <= max {
		return strings.TrimRight(s, " ")
	}
	at := 0
	for range max - 1 {
		_, n := utf8.DecodeRuneInString(s[at:])
		at += n
	}
	return s[:at] + "…"
}

// Error returns an error that a guest has sent, as one line of bounded length.
func Error(e banger.Error) *banger.Error {
	return &banger.Error{Code: banger.Code(Limit(string(e.Code), maxCode)), Message: Limit(e.Message, MaxError),
		Hint: Limit(e.Hint, maxHint)}
}

// Bound returns an error that says what err says in one line of bounded length, and has it as its
// cause.
func Bound(err error) error { return bound{err} }

type bound struct{ error }

func (b bound) Error() string { return Limit(b.error.Error(), MaxError) }
func (b bound) Unwrap() error { return b.error }

// shown returns the rune r, which was read from raw, as it is shown.
func shown(r rune, raw string) string {
	switch {
	case r == utf8.RuneError && len(raw) == 1:
		return fmt.Sprintf(`\x%02x`, raw[0])
	case Printable(r):
		return raw
	case r < utf8.RuneSelf:
		return fmt.Sprintf(`\x%02x`, r)
	case r > 0xffff:
		return fmt.Sprintf(`\U%08x`, r)
	}
	return fmt.Sprintf(`\u%04x`, r)
}
