// Package text makes text of guests, images, registries and VMMs printable before a person or a program reads it.
// Such text may contain control characters that control a terminal, marks that change the text direction, invisible
// characters, and bytes that are not text. All of these are replaced with their numbers, as in Go: \x1b, \u202e,
// \U000e0041, and \xff for a byte that is not UTF-8.
//
// Line and Limit are for text in messages and tables, Writer is for a stream on a terminal, and JSON is for
// documents. LastLines cuts a log. The package must not know where text comes from or goes to.
package text

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"banger"
)

// Maximum lengths of text from elsewhere, in characters.
const (
	MaxError = 1024 // in an error
	maxHint  = 256
	maxCode  = 40
)

// ignorable are invisible characters that Unicode classifies as letters or marks (DerivedCoreProperties.txt,
// Default_Ignorable_Code_Point). The other invisible ones belong to the category of formats, which unicode.IsPrint
// excludes.
var ignorable = []*unicode.RangeTable{unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector}

// Printable reports whether r can be printed unchanged. Line ends and tabs cannot.
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

// needsChange also returns true for bytes that are not UTF-8, which are read as utf8.RuneError.
func needsChange(r rune) bool { return r == utf8.RuneError || !Printable(r) }

// Limit is like Line for a text of any length. It returns at most max characters. If it cuts the text, the last
// character is "…".
func Limit(s string, max int) string {
	if len(s) > 4*max { // more bytes than max characters can have
		s = s[:4*max] + " " // still too long, so it is cut below
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

// Bound returns an error with the text of err in one line of bounded length, and with err as its cause.
func Bound(err error) error { return bound{err} }

type bound struct{ error }

func (b bound) Error() string { return Limit(b.error.Error(), MaxError) }
func (b bound) Unwrap() error { return b.error }

// shown returns the printable form of the rune r, which was read from raw.
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
