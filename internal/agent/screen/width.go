package screen

import (
	"unicode"

	"golang.org/x/text/width"
)

// columns returns how many columns a character takes: 0 for one that joins the character before it.
func columns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case r >= 0x1160 && r <= 0x11ff: // vowels and finals of Hangul
		return 0
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	}
	if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
		return 2
	}
	return 1
}

// lines are the characters of the charset 0, from '`' on.
var lines = []rune("◆▒␉␌␍␊°±␤␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·")

// translate returns the character that a charset has for one of ASCII.
func translate(charset byte, r rune) rune {
	switch {
	case charset == '0' && r >= '`' && r <= '~':
		return lines[r-'`']
	case charset == 'A' && r == '#':
		return '£'
	}
	return r
}
