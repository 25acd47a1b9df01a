package ignore

import "strings"

// outcome is the result of a match. The last two spare attempts that must fail, too.
type outcome int

const (
	noMatch outcome = iota
	match
	abortAll        // the text is too short for what is left of the pattern
	abortToStarStar // only a star that matches slashes can help
)

// maxSteps bounds the work for one pattern and one text. A pattern of a person needs a few hundred steps. One that
// needs more matches nothing.
const maxSteps = 1 << 20

// matcher matches as git's wildmatch.c does. The end of a string reads as a NUL there, and here as well.
type matcher struct {
	path  bool // no star and no other wildcard matches a slash, but ** does
	steps int
}

// wildmatch reports whether a pattern matches a whole text.
func wildmatch(pattern, text string, path bool) bool {
	m := matcher{path: path}
	return m.match(pattern, text) == match
}

// at returns the byte at a place, or 0 at the end.
func at(s string, i int) byte {
	if i < len(s) {
		return s[i]
	}
	return 0
}

func (m *matcher) match(pattern, text string) outcome {
	t := 0
	for p := 0; p < len(pattern); p, t = p+1, t+1 {
		if m.steps++; m.steps > maxSteps {
			return abortAll
		}
		if t >= len(text) && pattern[p] != '*' {
			return abortAll
		}
		switch c := pattern[p]; c {
		case '?':
			if m.path && text[t] == '/' {
				return noMatch
			}
		case '*':
			next, skipped, result := m.star(pattern, p, text, t)
			if !skipped {
				return result
			}
			p, t = next, t+strings.IndexByte(text[t:], '/') // both are at a slash
		case '[':
			end, in, ok := class(pattern, p, text[t])
			if !ok {
				return abortAll
			}
			if !in || m.path && text[t] == '/' {
				return noMatch
			}
			p = end
		case '\\':
			p++
			c = at(pattern, p)
			fallthrough
		default:
			if text[t] != c {
				return noMatch
			}
		}
	}
	if t < len(text) {
		return noMatch
	}
	return match
}

// star matches the pattern from a star at p on. With skipped, the star was one directory up to a slash, and next is the
// place of the slash in the pattern.
func (m *matcher) star(pattern string, p int, text string, t int) (next int, skipped bool, result outcome) {
	first := p
	for at(pattern, p) == '*' {
		p++
	}
	slashes := !m.path
	if m.path && p-first > 1 && (first == 0 || pattern[first-1] == '/') {
		rest := pattern[p:]
		if slashes = rest == "" || rest[0] == '/' || strings.HasPrefix(rest, `\/`); slashes && at(rest, 0) == '/' &&
			m.match(rest[1:], text[t:]) == match { // the stars may be no directory at all
			return 0, false, match
		}
	}
	if p == len(pattern) {
		if !slashes && strings.Contains(text[t:], "/") {
			return 0, false, abortToStarStar
		}
		return 0, false, match
	}
	if !slashes && pattern[p] == '/' {
		if !strings.Contains(text[t:], "/") {
			return 0, false, abortAll
		}
		return p, true, noMatch
	}
	return 0, false, m.longer(pattern[p:], text[t:], slashes)
}

// longer tries each length of a star before the rest of a pattern.
func (m *matcher) longer(rest, text string, slashes bool) outcome {
	for t := 0; t < len(text); t++ {
		if m.steps++; m.steps > maxSteps {
			return abortAll
		}
		c := text[t]
		if strings.IndexByte(special, rest[0]) < 0 { // look for a plain byte first
			for c != rest[0] {
				if !slashes && c == '/' {
					return abortToStarStar
				}
				if t++; t >= len(text) {
					if slashes {
						return abortAll
					}
					return abortToStarStar
				}
				c = text[t]
			}
		}
		switch result := m.match(rest, text[t:]); {
		case result == noMatch && !slashes && c == '/':
			return abortToStarStar
		case result != noMatch && (!slashes || result != abortToStarStar):
			return result
		}
	}
	return abortAll
}

// class matches a byte with a bracket expression that begins at p. end is the place of its closing bracket. It is not
// ok if the expression is broken.
func class(pattern string, p int, c byte) (end int, in, ok bool) {
	p++
	negated := at(pattern, p) == '!' || at(pattern, p) == '^'
	if negated {
		p++
	}
	var before byte // the start of a range, or 0
	for first := true; first || at(pattern, p) != ']'; p++ {
		first = false
		now := at(pattern, p)
		switch {
		case now == 0:
			return 0, false, false
		case now == '\\':
			p++
			if now = at(pattern, p); now == 0 {
				return 0, false, false
			}
			in = in || c == now
		case now == '-' && before != 0 && at(pattern, p+1) != 0 && at(pattern, p+1) != ']':
			p++
			if now = at(pattern, p); now == '\\' {
				p++
				if now = at(pattern, p); now == 0 {
					return 0, false, false
				}
			}
			in = in || before <= c && c <= now
			now = 0
		case now == '[' && at(pattern, p+1) == ':':
			close := strings.IndexByte(pattern[p+2:], ']')
			if close < 0 {
				return 0, false, false
			}
			name, named := strings.CutSuffix(pattern[p+2:p+2+close], ":")
			if !named { // the bracket is a plain one
				in = in || c == '['
				break
			}
			is := classes[name]
			if is == nil {
				return 0, false, false
			}
			in = in || is(c)
			p, now = p+2+close, 0
		default:
			in = in || c == now
		}
		before = now
	}
	return p, in != negated, true
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isAlpha(c byte) bool { return isLower(c) || isUpper(c) }
func isAlnum(c byte) bool { return isAlpha(c) || isDigit(c) }
func isGraph(c byte) bool { return ' ' < c && c < 0x7f }

// classes are the named classes, of ASCII alone, as git has them.
var classes = map[string]func(byte) bool{
	"alnum": isAlnum, "alpha": isAlpha, "digit": isDigit, "graph": isGraph, "lower": isLower, "upper": isUpper,
	"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
	"cntrl":  func(c byte) bool { return c < ' ' || c == 0x7f },
	"print":  func(c byte) bool { return c == ' ' || isGraph(c) },
	"punct":  func(c byte) bool { return isGraph(c) && !isAlnum(c) },
	"space":  func(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' },
	"xdigit": func(c byte) bool { return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' },
}
