// Package ignore tells which files git would not add, by rules of gitignore(5) and exactly as git reads them. It opens
// no file.
//
// Rules are hostile: matching one takes a bounded time. The package must not know where rules come from, which files
// are tracked, nor what becomes of those that are ignored.
package ignore

import "strings"

// Rules are the rules of one file, or of one text.
type Rules struct {
	base string // the directory of the file with a slash at its end; "" at the top
	list []rule
}

// rule is one line.
type rule struct {
	pattern  string // without ! and without the slash at its end
	plain    int    // length of the part before the first special character
	negated  bool   // it takes back what a rule before it says
	dirOnly  bool   // it ends with a slash
	nameOnly bool   // it has no other slash, so it is for names in all directories
	suffix   bool   // it is a star and plain text
}

// Parse reads the text of a .gitignore in a directory, whose path has no slash at its ends; "" is the top.
func Parse(text []byte, base string) *Rules {
	if base != "" {
		base += "/"
	}
	r := &Rules{base: base}
	rest := strings.TrimPrefix(string(text), "\xef\xbb\xbf")
	for line := range strings.SplitSeq(rest, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		line = strings.TrimSuffix(line, "\r")
		line, _, _ = strings.Cut(line, "\x00") // git reads the strings of C
		r.list = append(r.list, parseLine(trimSpaces(line)))
	}
	return r
}

// trimSpaces takes away the spaces at the end of a line, up to one behind a backslash.
func trimSpaces(line string) string {
	end := -1 // where the spaces begin
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case ' ':
			if end < 0 {
				end = i
			}
		case '\\':
			if i++; i == len(line) {
				return line
			}
			end = -1
		default:
			end = -1
		}
	}
	if end < 0 {
		return line
	}
	return line[:end]
}

func parseLine(line string) (r rule) {
	r.pattern, r.negated = strings.CutPrefix(line, "!")
	r.plain = plainLength(r.pattern)
	r.suffix = strings.HasPrefix(r.pattern, "*") && plainLength(r.pattern[1:]) == len(r.pattern)-1
	r.pattern, r.dirOnly = strings.CutSuffix(r.pattern, "/")
	r.nameOnly = !strings.Contains(r.pattern, "/")
	r.plain = min(r.plain, len(r.pattern))
	return r
}

// special are the characters with a meaning in patterns.
const special = `*?[\`

// plainLength returns how many bytes come before the first special character.
func plainLength(pattern string) int {
	if i := strings.IndexAny(pattern, special); i >= 0 {
		return i
	}
	return len(pattern)
}

// Match returns what the last of the rules that is for a path says of it. The path is that of a file in the directory
// of the rules or below it, and no directory above it is ignored.
func (r *Rules) Match(path string, isDir bool) (ignored, matched bool) {
	if !strings.HasPrefix(path, r.base) {
		return false, false
	}
	below := path[len(r.base):]
	name := path[strings.LastIndexByte(path, '/')+1:]
	for i := len(r.list) - 1; i >= 0; i-- {
		one := &r.list[i]
		if one.dirOnly && !isDir {
			continue
		}
		if one.nameOnly && one.matchName(name) || !one.nameOnly && one.matchPath(below) {
			return !one.negated, true
		}
	}
	return false, false
}

// matchName reports whether a rule without slashes is for a file with a name.
func (r *rule) matchName(name string) bool {
	switch {
	case r.plain == len(r.pattern):
		return name == r.pattern
	case r.suffix:
		return strings.HasSuffix(name, r.pattern[1:])
	}
	return wildmatch(r.pattern, name, false)
}

// matchPath reports whether a rule with slashes is for a path below the directory of the rules.
func (r *rule) matchPath(path string) bool {
	pattern, plain := r.pattern, r.plain
	if strings.HasPrefix(pattern, "/") {
		pattern, plain = pattern[1:], plain-1
	}
	if plain > len(path) || pattern[:plain] != path[:plain] {
		return false
	}
	pattern, path = pattern[plain:], path[plain:] // git, too, matches only the rest, as if that were all
	if plain > 0 && pattern == "" && path == "" {
		return true
	}
	return wildmatch(pattern, path, true)
}

// Stack has the rules for the files of one directory: those of the directories above it, and those of its own. The zero
// value has none.
type Stack struct {
	rules *Rules
	above *Stack
}

// Push returns s with rules that take precedence over its own. s stays as it is.
func (s *Stack) Push(r *Rules) *Stack {
	if r == nil || len(r.list) == 0 {
		return s
	}
	return &Stack{r, s}
}

// Match reports whether a file is ignored that is in the directory of s. A file below an ignored directory is ignored
// whatever Match says, so the caller must not ask for it.
func (s *Stack) Match(path string, isDir bool) bool {
	for ; s != nil && s.rules != nil; s = s.above {
		if ignored, matched := s.rules.Match(path, isDir); matched {
			return ignored
		}
	}
	return false
}
