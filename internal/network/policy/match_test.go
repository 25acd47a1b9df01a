package policy

import "testing"

func TestNamesAreComparedByLabels(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"good.example", "good.example", true},
		{"good.example", "GOOD.Example.", true},
		{"good.example", "a.good.example", false},
		{"good.example", "example", false},
		{"good.example", `good\.example`, false},
		{"*.good.example", "a.good.example", true},
		{"*.good.example", "B.a.Good.EXAMPLE.", true},
		{"*.good.example", "good.example", false},
		{"*.good.example", "evilgood.example", false},
		{"*.good.example", `evil\.good.example`, false},
		{"*.good.example", `evil\.a.good.example`, true},
		{"*.good.example", "good.example.evil", false},
		{"*.example", `a\.example`, false},
		{"*.example", ".", false},
		{"example", ".", false},
	} {
		if got := matchName(c.pattern, c.name); got != c.want {
			t.Errorf("%s has %s: %v", c.pattern, c.name, got)
		}
	}
}
