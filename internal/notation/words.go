package notation

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"banger"
)

// This file reads single values about a VM.

// CPUs reads a number of CPUs, which may have a fraction. It returns the whole CPUs of the VM, and, for a fraction, how
// many thousandths of a CPU its commands may use together.
func CPUs(text string) (whole int, thousandths int64, err error) {
	var n float64
	if _, err := fmt.Sscanf(text+"\n", "%g\n", &n); err != nil || n != n || n <= 0 || n > banger.MaxCPUs {
		return 0, 0, banger.Errorf(banger.CodeInvalid, "cpus is %.40s, but must be between 0.01 and %d", text, banger.MaxCPUs)
	}
	if whole = int(n); float64(whole) != n {
		return whole + 1, int64(n*1000 + 0.5), nil
	}
	return whole, 0, nil
}

// Restart parses no, on-failure, on-failure:N or always.
func Restart(text string) (p banger.RestartPolicy, err error) {
	name, max, limited := strings.Cut(text, ":")
	p.Name = name
	if limited {
		if p.Max, err = strconv.Atoi(max); err != nil || p.Max < 1 || name != banger.RestartOnFailure {
			return p, banger.Errorf(banger.CodeInvalid, "restart is %.40q, but must be no, on-failure[:N] or always", text)
		}
	}
	return p, p.Check()
}

// TTL parses the time to live of a VM: TIME[=rm|stop|suspend], such as 8h, or none.
func TTL(text string) (banger.Timer, error) {
	return timer("ttl", text, false)
}

// Idle parses the time after which an idle VM is parked: TIME[=suspend|stop], such as 15m, or none.
func Idle(text string) (banger.Timer, error) { return timer("idle", text, true) }

// timer parses TIME[=ACTION]. none and 0 give the zero value.
func timer(field, text string, idle bool) (t banger.Timer, err error) {
	if text == "" || text == "none" || text == "0" {
		return t, nil
	}
	word, action, chosen := strings.Cut(text, "=")
	after, err := time.ParseDuration(word)
	if err != nil || after < time.Second {
		return t, banger.Errorf(banger.CodeInvalid, "%s is %.40q, but must be a time of at least 1s, such as 15m or 15m=stop",
			field, text).WithHint("units are s, m and h; none switches it off")
	}
	t = banger.Timer{Seconds: int64(after / time.Second), Action: banger.TimerActions(idle)[0]}
	if chosen {
		t.Action = action
	}
	return t, t.Check(idle)
}
