package banger

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// signals are the numbers of signal(7) on amd64 and arm64.
var signals = map[string]int{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11,
	"USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20,
	"TTIN": 21,
	"TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28, "IO": 29, "PWR": 30, "SYS": 31,
	"RTMIN": 34, "RTMAX": 64,
}

// SignalNames returns the names of all signals without SIG, in the order of their numbers.
func SignalNames() []string {
	return slices.SortedFunc(maps.Keys(signals), func(a, b string) int { return signals[a] - signals[b] })
}

// ParseSignal reads a signal as docker writes it: a number from 1 to 64, a name with or without SIG, RTMIN+n or
// RTMAX-n. It returns an *Error of CodeInvalid for anything else.
func ParseSignal(text string) (int, error) {
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	base, offset := name, 0
	if i := strings.IndexAny(name, "+-"); i > 0 && strings.HasPrefix(name, "RTM") {
		n, err := strconv.Atoi(name[i:])
		if err != nil {
			base = ""
		} else {
			base, offset = name[:i], n
		}
	}
	n, known := signals[base]
	if !known {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			n = 0
		}
	}
	if n += offset; n < 1 || n > 64 {
		return 0, Errorf(CodeInvalid, "%.40q is not a signal", text).
			WithHint("write a name like TERM or a number from 1 to 64")
	}
	return n, nil
}
