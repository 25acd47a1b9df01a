package banger

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseSize reads a size as docker users write it: "512m", "2g", "1GiB", "10GB", or a bare number of MiB. All units
// are binary, as in docker. It returns bytes, or an *Error of CodeInvalid for zero, negative, fractional or absurd
// values.
func ParseSize(s string) (int64, error) {
	bad := func() (int64, error) {
		return 0, Errorf(CodeInvalid, "%q is not a size", s).WithHint("write 512m, 2g or a number of MiB")
	}
	t := strings.ToLower(strings.TrimSpace(s))
	digits := strings.TrimRight(t, "bkmgti")
	unit := t[len(digits):]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 {
		return bad()
	}
	shift := map[string]uint{"": 20, "b": 0, "k": 10, "kb": 10, "kib": 10, "m": 20, "mb": 20, "mib": 20, "g": 30, "gb": 30,
		"gib": 30, "t": 40, "tb": 40, "tib": 40}
	k, ok := shift[unit]
	if !ok || n > (1<<62)>>k {
		return bad()
	}
	return n << k, nil
}

// FormatSize returns n bytes with a binary unit: "512 MiB", "1.5 GiB".
func FormatSize(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") + " " + units[i]
}
