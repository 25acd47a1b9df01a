package tooling

import (
	"regexp"
	"slices"
	"strings"
)

// This file reads ranges of versions in the two notations that are in use. A range that is not understood has no spans.

// comparison matches one bound, such as >=3.11, ^20 or ==3.12.*.
var comparison = regexp.MustCompile(`^(\^|~=|~>|~|===?|!=|>=|<=|>|<|=|)\s*v?([0-9.xX*]+)$`)

// wildcard matches the end of a version that any version has.
var wildcard = regexp.MustCompile(`(^|\.)[xX*](\.[xX*])*$`)

// bound is one condition of a range.
type bound struct {
	operator string
	version  []int // empty for any version
	wild     bool  // it ends with .*, or .x
}

func parseBound(text string) (b bound, ok bool) {
	m := comparison.FindStringSubmatch(text)
	if m == nil {
		return b, false
	}
	digits := wildcard.ReplaceAllString(m[2], "")
	b.operator, b.wild = m[1], digits != m[2]
	if digits == "" {
		return b, b.wild
	}
	b.version, ok = parts(digits)
	return b, ok
}

// npmRange reads a range of package.json (npm's semver): ^20, >=20 <23, 18 || 20, 18 - 20 and 20.x.
func npmRange(text string) (spans []span) {
	for choice := range strings.SplitSeq(text, "||") {
		all := []span{{}}
		if low, high, found := strings.Cut(choice, " - "); found {
			choice = ">=" + strings.TrimSpace(low) + " <=" + strings.TrimSpace(high)
		}
		choice = spaced.ReplaceAllString(choice, "$1")
		for word := range strings.FieldsSeq(choice) {
			b, ok := parseBound(word)
			if !ok {
				return nil
			}
			s, ok := b.npm()
			if !ok {
				return nil
			}
			all = append(all, s)
		}
		spans = append(spans, meet(all)...)
	}
	return spans
}

// spaced matches blanks between an operator and its version.
var spaced = regexp.MustCompile(`([<>=~^])\s+`)

func (b bound) npm() (span, bool) {
	v := b.version
	if len(v) == 0 {
		return span{}, b.operator == "" || b.operator == ">=" || b.operator == "="
	}
	partial := len(v) < 3
	switch b.operator {
	case "", "=":
		return begins(v), true
	case ">=":
		return span{low: v}, true
	case "<":
		return span{high: v}, true
	case ">":
		if partial {
			return span{low: next(v)}, true
		}
		return span{low: after(v)}, true
	case "<=":
		if partial {
			return span{high: next(v)}, true
		}
		return span{high: after(v)}, true
	case "~":
		return span{v, next(v[:min(len(v), 2)])}, true
	case "^":
		n := slices.IndexFunc(v, func(n int) bool { return n > 0 })
		if n < 0 {
			n = len(v) - 1
		}
		return span{v, next(v[:n+1])}, true
	}
	return span{}, false
}

// pythonRange reads a specifier of pyproject.toml (PEP 440): >=3.11,<3.13, ~=3.11 and ==3.12.*.
func pythonRange(text string) []span {
	all := []span{{}}
	var not [][]int
	for word := range strings.SplitSeq(text, ",") {
		b, ok := parseBound(strings.TrimSpace(word))
		if !ok || len(b.version) == 0 {
			return nil
		}
		if b.operator == "!=" {
			not = append(not, b.version)
			continue
		}
		s, ok := b.python()
		if !ok {
			return nil
		}
		all = append(all, s)
	}
	spans := meet(all)
	for _, v := range not { // one excluded version changes the newest prefix only if the prefix is all excluded
		if chosen, ok := parts(newest(spans, "")); ok && len(v) <= len(chosen) && slices.Equal(v, chosen[:len(v)]) {
			return nil
		}
	}
	return spans
}

func (b bound) python() (span, bool) {
	v := b.version
	if b.wild {
		return begins(v), b.operator == "=="
	}
	switch b.operator {
	case "==", "===":
		return span{v, after(v)}, true
	case ">=":
		return span{low: v}, true
	case ">":
		return span{low: after(v)}, true
	case "<":
		return span{high: v}, true
	case "<=":
		return span{high: after(v)}, true
	case "~=":
		if len(v) < 2 {
			return span{}, false
		}
		return span{v, next(v[:len(v)-1])}, true
	case "^": // poetry's
		return bound{operator: "^", version: v}.npm()
	}
	return span{}, false
}
