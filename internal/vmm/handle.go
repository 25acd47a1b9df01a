package vmm

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Handle identifies a process permanently: a pid alone may be reused.
type Handle struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // field 22 of /proc/PID/stat, clock ticks since boot (proc(5))
}

// HandleOf reads the Handle of a running process from /proc. The pid must be the one that /proc
// shows: a process in its own PID namespace sees other pids for itself and its children.
func HandleOf(pid int) (Handle, error) {
	st, err := readStat(strconv.Itoa(pid))
	return st.handle, err
}

// Self returns the Handle of this process.
func Self() (Handle, error) {
	st, err := readStat("self")
	return st.handle, err
}

// HandleOfFD returns the Handle of the process that a pidfd refers to (pidfd_open(2)).
func HandleOfFD(pidfd int) (Handle, error) {
	path := fmt.Sprintf("/proc/self/fdinfo/%d", pidfd)
	data, err := os.ReadFile(path)
	if err != nil {
		return Handle{}, err
	}
	_, text, _ := strings.Cut(string(data), "\nPid:")
	text, _, _ = strings.Cut(text, "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || pid <= 0 {
		return Handle{}, fmt.Errorf("%s names no process", path)
	}
	return HandleOf(pid)
}

// Alive reports whether the process that h was taken from still runs and is not a zombie.
func (h Handle) Alive() bool {
	st, err := h.stat()
	return err == nil && st.state != "Z" && st.state != "X"
}

// Usage is what a process has used so far.
type Usage struct {
	CPUTime time.Duration // of all threads, user and system
	Memory  int64         // resident bytes
}

// Usage reads what the process has used. It returns an error if the process has ended.
func (h Handle) Usage() (Usage, error) {
	st, err := h.stat()
	return st.usage, err
}

func (h Handle) stat() (stat, error) {
	st, err := readStat(strconv.Itoa(h.PID))
	if err == nil && st.handle != h {
		err = os.ErrProcessDone
	}
	return st, err
}

// stat is the part of /proc/PID/stat that we read.
type stat struct {
	handle Handle
	state  string
	usage  Usage
}

// tick is the unit of CPU times in /proc, USER_HZ. It is the same on every architecture of Linux
// except alpha and ia64 (proc(5), asm/param.h).
const tick = time.Second / 100

// readStat reads /proc/PID/stat for a pid, or for "self".
func readStat(process string) (st stat, err error) {
	path := "/proc/" + process + "/stat"
	data, err := os.ReadFile(path)
	if err != nil {
		return st, err
	}
	// The command name in field 2 may contain anything, so the fields are counted from its end.
	s := string(data)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 22 {
		return st, fmt.Errorf("%s has %d fields", path, len(fields))
	}
	pid, err := strconv.Atoi(s[:strings.IndexByte(s+" ", ' ')])
	number := func(field int) (n uint64) { // proc(5) counts from 1, and the first two fields are cut off
		if err == nil {
			n, err = strconv.ParseUint(fields[field-3], 10, 64)
		}
		return n
	}
	st.state, st.handle = fields[0], Handle{PID: pid, StartTime: number(22)}
	st.usage = Usage{
		CPUTime: time.Duration(number(14)+number(15)) * tick,
		Memory:  int64(number(24)) * int64(os.Getpagesize()),
	}
	return st, err
}
