package agent

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// ticks is how many clock ticks the kernel tells for a second (USER_HZ; time(7)).
const ticks = 100

// kthreadd is the process whose children are the kernel's threads.
const kthreadd = 2

// processes returns the processes of the guest, without the kernel's threads, in the order of their numbers.
func processes() []banger.Process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	booted := time.Now().Add(-time.Duration(now.Nano()))
	var list []banger.Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == kthreadd {
			continue
		}
		if p, ok := processOf(pid, booted); ok && p.Parent != kthreadd {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b banger.Process) int { return a.PID - b.PID })
	return list[:min(len(list), banger.MaxProcesses)]
}

// processOf reads what the kernel tells of a process (proc_pid_stat(5)). It returns false if the process has ended.
func processOf(pid int, booted time.Time) (p banger.Process, ok bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	info, err := os.Stat(dir)
	if err != nil {
		return p, false
	}
	data, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return p, false
	}
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return p, false
	}
	f := strings.Fields(string(data[end+1:])) // the first of them is field 3
	if len(f) < 22 {
		return p, false
	}
	field := func(n int) int64 {
		v, _ := strconv.ParseInt(f[n-3], 10, 64)
		return v
	}
	p = banger.Process{PID: pid, Parent: int(field(4)), UID: info.Sys().(*syscall.Stat_t).Uid,
		Started: booted.Add(time.Duration(field(22)) * time.Second / ticks).Round(time.Second).UTC(),
		CPUTime: time.Duration(field(14)+field(15)) * time.Second / ticks,
		Memory:  field(24) * int64(os.Getpagesize()),
		Command: "[" + string(data[open+1:end]) + "]"}
	if line, err := os.ReadFile(dir + "/cmdline"); err == nil && len(line) > 0 {
		words := bytes.ReplaceAll(bytes.TrimRight(line, "\x00"), []byte{0}, []byte{' '})
		p.Command = string(words[:min(len(words), banger.MaxCommand)])
	}
	return p, true
}
