package logs

import (
	"strconv"
	"strings"
	"time"

	"banger/internal/cli/command"
)

// layouts are the forms of a time, from docker's command line. Seconds may have a fraction in each of them.
var layouts = []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02"}

// parseTime reads the value of a flag as docker does: a duration before now, a time in its own zone or in that of now,
// or seconds of the Unix epoch. It returns the zero time for no text.
func parseTime(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && text != "0" {
		return now.Add(-d), nil
	}
	for _, layout := range layouts {
		for _, zone := range []string{"", "Z07:00"} {
			if t, err := time.ParseInLocation(layout+zone, text, now.Location()); err == nil {
				return t, nil
			}
		}
	}
	if t, ok := unixTime(text); ok {
		return t, nil
	}
	return time.Time{}, command.UsageErrorf("%s is %q, but must be a duration such as 10m, a time such as "+
		"2026-11-29T18:30:00Z, a date, or seconds of the Unix epoch", flag, text)
}

// unixTime reads seconds of the Unix epoch, which may have a fraction of up to nine digits.
func unixTime(text string) (time.Time, bool) {
	seconds, fraction, _ := strings.Cut(text, ".")
	s, err := strconv.ParseUint(seconds, 10, 36)
	if err != nil || len(fraction) > 9 {
		return time.Time{}, false
	}
	n, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 32)
	return time.Unix(int64(s), int64(n)), err == nil
}
