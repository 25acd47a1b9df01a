package vmm

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Handle identifies a process for ever: a pid alone may be reused.
type Handle struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // field 22 of /proc/PID/stat, clock ticks since boot (proc(5))
}

// HandleOf reads the Handle of a running process from /proc.
func HandleOf(pid int) (Handle, error) {
	st, err := readStat(pid)
	return st.handle, err
}

// Alive reports whether the very process that h was taken from still runs and
// is no zombie.
func (h Handle) Alive() bool {
	st, err := h.stat()
	return err == nil && st.state != "Z" && st.state != "X"
}

// Usage is what a process has used.
type Usage struct {
	CPUTime time.Duration // of all its threads, user and system
	Memory  int64         // resident bytes
}

// Usage reads what the process has used; an error says that it is gone.
func (h Handle) Usage() (Usage, error) {
	st, err := h.stat()
	return st.usage, err
}

func (h Handle) stat() (stat, error) {
	st, err := readStat(h.PID)
	if err == nil && st.handle != h {
		err = os.ErrProcessDone
	}
	return st, err
}

// stat is what we read of /proc/PID/stat.
type stat struct {
	handle Handle
	state  string
	usage  Usage
}

// tick is the unit of CPU times in /proc, USER_HZ, which is the same on all that Linux runs
// on but alpha and ia64 (proc(5), asm/param.h).
const tick = time.Second / 100

func readStat(pid int) (st stat, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return st, err
	}
	// The command name in field 2 may contain anything, so count from its end.
	s := string(data)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 22 {
		return st, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	number := func(field int) (n uint64) { // proc(5) counts from 1, and two have gone
		if err == nil {
			n, err = strconv.ParseUint(fields[field-3], 10, 64)
		}
		return n
	}
	st.state, st.handle = fields[0], Handle{PID: pid, StartTime: number(22)}
	st.usage = Usage{CPUTime: time.Duration(number(14)+number(15)) * tick, Memory: int64(number(24)) * int64(os.Getpagesize())}
	return st, err
}
