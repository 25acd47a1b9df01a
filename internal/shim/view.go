package shim

import (
	"fmt"
	"math"
	"time"

	"banger"
)

// FormatView returns the argument of OUTPUT: the lines from the end, the first and the last time in nanoseconds of the
// Unix epoch (0: no bound), the position, and whether stamps are wanted. A shim of an earlier banger reads the first.
func FormatView(v banger.LogView) string {
	return fmt.Sprintf("%d %d %d %d %t", v.Tail, nanoseconds(v.Since), nanoseconds(v.Until), v.Position, v.Stamps)
}

// ParseView reads what FormatView returns. A daemon of an earlier banger sends the lines from the end alone.
func ParseView(arg string) (v banger.LogView, err error) {
	var since, until int64
	if n, err := fmt.Sscan(arg, &v.Tail, &since, &until, &v.Position, &v.Stamps); err != nil && n != 1 {
		return banger.LogView{}, banger.Errorf(banger.CodeInvalid, "the view %.100q cannot be read: %w", arg, err)
	}
	for bound, n := range map[*time.Time]int64{&v.Since: since, &v.Until: until} {
		if n != 0 {
			*bound = time.Unix(0, n)
		}
	}
	return v, nil
}

// nanoseconds returns a bound as a number, which can say the times from 1970 to 2262. No record has another time.
func nanoseconds(t time.Time) int64 {
	switch {
	case t.IsZero():
		return 0
	case t.Before(time.Unix(0, 1)):
		return 1
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}
