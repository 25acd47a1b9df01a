package shim

import (
	"math"
	"testing"
	"time"

	"banger"
)

// TestAViewOnTheWire fixes the format, which shims and daemons of other versions use.
func TestAViewOnTheWire(t *testing.T) {
	some := time.Unix(1_700_000_000, 5)
	for arg, v := range map[string]banger.LogView{
		"-1 0 0 0 false": {Tail: -1},
		"3 1700000000000000005 1700000000000000006 77 true": {Tail: 3, Since: some, Until: some.Add(1), Position: 77,
			Stamps: true},
		"0 0 1 18446744073709551615 false": {Until: time.Unix(0, 1), Position: math.MaxUint64},
		"0 9223372036854775807 0 0 false":  {Since: time.Unix(0, math.MaxInt64)},
	} {
		got, err := ParseView(arg)
		if FormatView(v) != arg || err != nil || FormatView(got) != arg || !got.Since.Equal(v.Since) ||
			!got.Until.Equal(v.Until) {
			t.Errorf("%q: %+v becomes %q, and then %+v, %v", arg, v, FormatView(v), got, err)
		}
	}
}

// TestViewsOfOthers: an earlier daemon sends only the lines from the end, and times beyond the numbers are bounds too.
func TestViewsOfOthers(t *testing.T) {
	if v, err := ParseView("7"); err != nil || v != (banger.LogView{Tail: 7}) {
		t.Errorf("an earlier daemon's view is %+v, %v", v, err)
	}
	for _, arg := range []string{"", "x", "1 2", "1 0 0 -1 true", "1 0 0 0", "99999999999999999999"} {
		if v, err := ParseView(arg); banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("%q is %+v, %v", arg, v, err)
		}
	}
	early, late := time.Date(1066, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	if got := FormatView(banger.LogView{Since: early, Until: late}); got != "0 1 9223372036854775807 0 false" {
		t.Errorf("times beyond the numbers are %q", got)
	}
}
