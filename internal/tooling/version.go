package tooling

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// want is what one place asks for.
type want struct {
	tool    string
	version string // what mise installs; "" if it cannot be known
	Source
	rank    int
	isRange int    // 1 for a range, so that exact versions sort before
	spans   []span // the versions that are meant; nil if that is not known
}

// span is the versions from low up to high, without high. Missing parts of a version are 0. A nil high is no bound.
type span struct{ low, high []int }

// agree reports whether some version may be what both ask for. Where that is not known, it says yes.
func agree(a, b want) bool {
	if a.spans == nil || b.spans == nil {
		bothWords := a.spans == nil && b.spans == nil && a.isRange+b.isRange == 0
		return !bothWords || a.version == b.version
	}
	return slices.ContainsFunc(a.spans, func(x span) bool {
		return slices.ContainsFunc(b.spans, func(y span) bool { return len(meet([]span{x, y})) > 0 })
	})
}

// meet returns the one span of versions that are in all spans, or none.
func meet(list []span) []span {
	var all span
	for _, s := range list {
		if compare(s.low, all.low) > 0 {
			all.low = s.low
		}
		if all.high == nil || s.high != nil && compare(s.high, all.high) < 0 {
			all.high = s.high
		}
	}
	if all.high != nil && compare(all.low, all.high) >= 0 {
		return nil
	}
	return []span{all}
}

func compare(a, b []int) int {
	for i := range max(len(a), len(b)) {
		if d := part(a, i) - part(b, i); d != 0 {
			return d
		}
	}
	return 0
}

func part(version []int, i int) int {
	if i < len(version) {
		return version[i]
	}
	return 0
}

// numbers matches a version of numbers alone, such as 1.26 or v20.1.0.
var numbers = regexp.MustCompile(`^v?(\d{1,8}(?:\.\d{1,8}){0,3})$`)

// parts returns the numbers of a version.
func parts(text string) ([]int, bool) {
	m := numbers.FindStringSubmatch(text)
	if m == nil {
		return nil, false
	}
	var list []int
	for word := range strings.SplitSeq(m[1], ".") {
		n, _ := strconv.Atoi(word)
		list = append(list, n)
	}
	return list, true
}

func format(version []int) string {
	words := make([]string, len(version))
	for i, n := range version {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ".")
}

// next returns the first version after all that begin with version.
func next(version []int) []int {
	out := slices.Clone(version)
	out[len(out)-1]++
	return out
}

// after returns the first version after version itself, which is one of three numbers.
func after(version []int) []int {
	out := slices.Clone(version)
	for len(out) < 3 {
		out = append(out, 0)
	}
	return append(out, 1)
}

// begins returns the span of all versions that begin with version.
func begins(version []int) span { return span{version, next(version)} }

// newest returns the newest prefix of versions in spans, or "" if it is not known. open is the answer for spans
// without a bound.
func newest(spans []span, open string) string {
	if len(spans) == 0 {
		return ""
	}
	best := spans[0]
	for _, s := range spans[1:] {
		if best.high != nil && (s.high == nil || compare(s.high, best.high) > 0) {
			best = s
		}
	}
	if best.high == nil {
		return open
	}
	last := slices.Clone(best.high)
	for len(last) > 0 && last[len(last)-1] == 0 {
		last = last[:len(last)-1]
	}
	if len(last) == 0 {
		return ""
	}
	last[len(last)-1]--
	last = last[:min(len(last), 3)]
	if len(meet([]span{best, begins(last)})) == 0 {
		return ""
	}
	return format(last)
}
