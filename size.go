package banger

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseSize reads a size as docker does: "512m", "1.5g", "1GiB", "10GB", or a bare number of bytes. All units are
// binary. It returns whole bytes, or an *Error of CodeInvalid for zero, negative or absurd values.
func ParseSize(s string) (int64, error) {
	bad := func() (int64, error) {
		return 0, Errorf(CodeInvalid, "%q is not a size", s).WithHint("write 512m, 1.5g or a number of bytes")
	}
	t := strings.ToLower(strings.TrimSpace(s))
	digits := strings.TrimRight(t, "bkmgti")
	unit := t[len(digits):]
	shift := map[string]uint{"": 0, "b": 0, "k": 10, "kb": 10, "kib": 10, "m": 20, "mb": 20, "mib": 20, "g": 30, "gb": 30,
		"gib": 30, "t": 40, "tb": 40, "tib": 40}
	k, ok := shift[unit]
	if !ok || strings.Trim(digits, "0123456789.") != "" {
		return bad()
	}
	if n, err := strconv.ParseInt(digits, 10, 64); err == nil { // whole numbers are exact
		if n <= 0 || n > (1<<62)>>k {
			return bad()
		}
		return n << k, nil
	}
	f, err := strconv.ParseFloat(digits, 64)
	if f *= float64(int64(1) << k); err != nil || f < 1 || f > 1<<62 {
		return bad()
	}
	return int64(f), nil
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
