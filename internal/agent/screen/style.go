package screen

import (
	"fmt"
	"strconv"
)

// Attributes of text. The numbers of SGR that set and clear them are in attributes.
const (
	bold = 1 << iota
	faint
	italic
	blink
	rapid
	reverse
	conceal
	strike
)

// attributes lists the numbers of SGR that set an attribute.
var attributes = []struct {
	set int
	bit uint8
}{{1, bold}, {2, faint}, {3, italic}, {5, blink}, {6, rapid}, {7, reverse}, {8, conceal}, {9, strike}}

// cleared says which attributes a number of SGR clears.
var cleared = map[int]uint8{22: bold | faint, 23: italic, 25: blink | rapid, 27: reverse, 28: conceal, 29: strike}

// color is a kind and a value. The zero value is the terminal's own.
type color uint32

// The kinds of colours: the 16 with numbers of their own in SGR, the 256, and red, green and blue.
const (
	basic   color = 1 << 24
	indexed color = 2 << 24
	direct  color = 3 << 24
	kinds   color = 0xff << 24
)

// style is how a character looks.
type style struct {
	fg, bg, line color // of text, of what is behind it, and of an underline
	attributes   uint8
	underline    uint8 // as in SGR 4: 0 is no line, 1 to 5 are the styles
}

// blank is the style of a place that is erased: it has the background alone.
func (s style) blank() style { return style{bg: s.bg} }

// sgr returns the sequence that sets exactly this style.
func (s style) sgr() string {
	b := []byte("\x1b[0")
	for _, a := range attributes {
		if s.attributes&a.bit != 0 {
			b = fmt.Appendf(b, ";%d", a.set)
		}
	}
	if s.underline == 1 {
		b = append(b, ";4"...)
	} else if s.underline > 1 {
		b = fmt.Appendf(b, ";4:%d", s.underline)
	}
	b = s.fg.append(b, 30)
	b = s.bg.append(b, 40)
	switch v := s.line &^ kinds; s.line & kinds {
	case indexed:
		b = fmt.Appendf(b, ";58:5:%d", v)
	case direct:
		b = fmt.Appendf(b, ";58:2::%d:%d:%d", v>>16, v>>8&255, v&255)
	}
	return string(append(b, 'm'))
}

// append adds the numbers of SGR for a colour of the text (first is 30) or behind it (40).
func (c color) append(b []byte, first int) []byte {
	switch v := int(c &^ kinds); c & kinds {
	case basic:
		if v >= 8 {
			first += 60 - 8
		}
		return strconv.AppendInt(append(b, ';'), int64(first+v), 10)
	case indexed:
		return fmt.Appendf(b, ";%d;5;%d", first+8, v)
	case direct:
		return fmt.Appendf(b, ";%d;2;%d;%d;%d", first+8, v>>16, v>>8&255, v&255)
	}
	return b
}

// apply changes the style as the sequence SGR says.
func (s *style) apply(params []param) {
	if len(params) == 0 {
		*s = style{}
	}
	for len(params) > 0 {
		n := 1
		for n < len(params) && params[n].colon {
			n++
		}
		switch value := max(0, params[0].value); value {
		case 38, 48, 58:
			var c color
			var ok bool
			if c, n, ok = readColor(params, n); ok {
				*s.place(value) = c
			}
		case 4:
			s.underline = 1
			if n > 1 {
				s.underline = uint8(min(5, max(0, params[1].value)))
			}
		default:
			s.simple(value)
		}
		params = params[n:]
	}
}

// place returns the colour that a number of SGR introduces.
func (s *style) place(value int) *color {
	switch value {
	case 38:
		return &s.fg
	case 48:
		return &s.bg
	}
	return &s.line
}

// simple applies a number of SGR that stands alone.
func (s *style) simple(value int) {
	switch {
	case value == 0:
		*s = style{}
	case value == 21:
		s.underline = 2
	case value == 24:
		s.underline = 0
	case value >= 30 && value <= 37:
		s.fg = basic | color(value-30)
	case value == 39:
		s.fg = 0
	case value >= 40 && value <= 47:
		s.bg = basic | color(value-40)
	case value == 49:
		s.bg = 0
	case value == 59:
		s.line = 0
	case value >= 90 && value <= 97:
		s.fg = basic | color(value-90+8)
	case value >= 100 && value <= 107:
		s.bg = basic | color(value-100+8)
	}
	s.attributes &^= cleared[value]
	for _, a := range attributes {
		if a.set == value {
			s.attributes |= a.bit
		}
	}
}

// readColor reads a colour that begins at params[0]. Of params, n are joined by colons. It returns how many it used.
func readColor(params []param, n int) (c color, used int, ok bool) {
	joined := n > 1
	all := params[:n]
	if !joined {
		all = params
	}
	at := func(i int) color {
		if i >= len(all) {
			return 0
		}
		return color(min(255, max(0, all[i].value)))
	}
	if len(all) < 2 {
		return 0, n, false
	}
	switch kind := all[1].value; {
	case kind == 5 && len(all) > 2:
		c, used = indexed|at(2), 3
	case kind == 2 && joined && n > 5: // with an identifier of the colour space
		c, used = direct|at(3)<<16|at(4)<<8|at(5), 6
	case kind == 2 && len(all) > 4:
		c, used = direct|at(2)<<16|at(3)<<8|at(4), 5
	default:
		return 0, max(n, min(2, len(params))), false
	}
	if joined {
		used = n
	}
	return c, used, true
}
