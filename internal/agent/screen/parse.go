package screen

import (
	"slices"
	"unicode/utf8"
)

// Bounds of what a parser keeps, because what a command writes may be hostile.
const (
	maxSequence = 256 // bytes of an escape sequence; a longer one has no effect
	maxParams   = 32
)

// The states of a parser.
const (
	inText   = iota
	inEscape // behind ESC, and its intermediate bytes
	inControl
	inString // OSC, DCS, SOS, PM and APC, which have no effect on the screen
)

const (
	bel = 0x07
	can = 0x18
	sub = 0x1a
	esc = 0x1b
)

// parser splits a stream into characters, control characters and escape sequences. It keeps only the beginning of what
// is not complete.
type parser struct {
	state   int
	begun   []byte // the incomplete sequence or character, up to maxSequence
	tooLong bool
}

// receiver is told what the parser finds.
type receiver interface {
	print(r rune)
	control(b byte)
	escape(intermediate, final byte)
	sequence(s *sequence)
}

// sequence is a control sequence: CSI, parameters, a final byte.
type sequence struct {
	prefix, intermediate, final byte
	params                      []param
}

// param is a number of a sequence. One behind a colon belongs to the one before it.
type param struct {
	value int // -1 if it is missing
	colon bool
}

// number returns the parameter at i, or other if it is missing.
func (s *sequence) number(i, other int) int {
	if i >= len(s.params) || s.params[i].value < 0 {
		return other
	}
	return s.params[i].value
}

// count returns the parameter at i as a number of times, which is at least 1.
func (s *sequence) count(i int) int { return max(1, s.number(i, 1)) }

// feed takes the next byte.
func (p *parser) feed(b byte, to receiver) {
	switch {
	case p.state == inText:
		p.text(b, to)
	case b == esc:
		p.begin(inEscape, b)
	case b == can || b == sub:
		p.end()
	case p.state == inString:
		if b == bel && p.begun[1] == ']' {
			p.end()
			return
		}
		p.keep(b)
	case b < 0x20:
		to.control(b)
	case b >= 0x7f: // DEL has no effect, and no sequence has other bytes
	case p.state == inEscape:
		p.escape(b, to)
	default:
		p.keep(b)
		if b >= 0x40 {
			p.finish(to)
		}
	}
}

// begin starts a sequence.
func (p *parser) begin(state int, b byte) {
	p.state, p.begun, p.tooLong = state, append(p.begun[:0], b), false
}

// keep adds a byte to the sequence, if there is room.
func (p *parser) keep(b byte) {
	if len(p.begun) < maxSequence {
		p.begun = append(p.begun, b)
	} else {
		p.tooLong = true
	}
}

// end returns to text.
func (p *parser) end() {
	p.state, p.begun, p.tooLong = inText, p.begun[:0], false
}

// text takes a byte of text. Bytes that are not UTF-8 are replaced, as terminals do.
func (p *parser) text(b byte, to receiver) {
	if len(p.begun) == 0 && b < utf8.RuneSelf {
		p.single(b, to)
		return
	}
	p.begun = append(p.begun, b)
	for p.state == inText && len(p.begun) > 0 && utf8.FullRune(p.begun) {
		r, n := utf8.DecodeRune(p.begun)
		p.begun = slices.Delete(p.begun, 0, n)
		if r < utf8.RuneSelf {
			p.single(byte(r), to)
		} else {
			to.print(r)
		}
	}
}

// single takes a character of ASCII.
func (p *parser) single(b byte, to receiver) {
	switch {
	case b == esc:
		p.begin(inEscape, b)
	case b < 0x20:
		to.control(b)
	case b < 0x7f:
		to.print(rune(b))
	}
}

// escape takes a byte behind ESC.
func (p *parser) escape(b byte, to receiver) {
	first := len(p.begun) == 1
	p.keep(b)
	switch {
	case first && b == '[':
		p.state = inControl
	case first && (b == ']' || b == 'P' || b == 'X' || b == '^' || b == '_'):
		p.state = inString
	case b >= 0x30:
		var intermediate byte
		if len(p.begun) > 2 {
			intermediate = p.begun[1]
		}
		bad := len(p.begun) > 3
		p.end()
		if !bad {
			to.escape(intermediate, b)
		}
	}
}

// finish hands over a control sequence that is complete.
func (p *parser) finish(to receiver) {
	s, ok := readSequence(p.begun[2:])
	ok = ok && !p.tooLong
	p.end()
	if ok {
		to.sequence(s)
	}
}

// readSequence reads what stands behind CSI. It returns false if that has no meaning.
func readSequence(b []byte) (*sequence, bool) {
	s := &sequence{final: b[len(b)-1]}
	b = b[:len(b)-1]
	if len(b) > 0 && b[0] >= '<' && b[0] <= '?' {
		s.prefix, b = b[0], b[1:]
	}
	if len(b) > 0 && b[len(b)-1] < 0x30 {
		s.intermediate, b = b[len(b)-1], b[:len(b)-1]
	}
	if len(b) == 0 {
		return s, true
	}
	now := param{value: -1}
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			now.value = min(max(now.value, 0)*10+int(c-'0'), 1<<16-1)
		case c == ';' || c == ':':
			s.params = append(s.params, now)
			now = param{value: -1, colon: c == ':'}
		default:
			return nil, false
		}
	}
	if s.params = append(s.params, now); len(s.params) > maxParams {
		s.params = s.params[:maxParams]
	}
	return s, true
}

// rest returns bytes that bring another terminal to where this parser is inside a sequence. What an overlong sequence
// says is not kept, so it becomes one that terminals ignore and that ends at the same byte.
func (p *parser) rest() []byte {
	switch {
	case !p.tooLong:
		return slices.Clone(p.begun)
	case p.state == inString && p.begun[1] == ']':
		return []byte("\x1b]65535;")
	case p.state == inString:
		return []byte("\x1b_")
	}
	return []byte("\x1b[!;")
}
