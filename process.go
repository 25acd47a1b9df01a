package banger

import "time"

// MaxProcesses is the maximum number of processes in a list of them. MaxCommand is the maximum length of a command in
// bytes. A list of that size fits into a frame, whatever JSON escapes in it.
const (
	MaxProcesses = 1000
	MaxCommand   = 128
)

// Process is a process of a guest, as the guest tells it.
type Process struct {
	PID     int           `json:"pid"`
	Parent  int           `json:"ppid"`
	UID     uint32        `json:"uid"`
	Started time.Time     `json:"started"`
	CPUTime time.Duration `json:"cpu_ns"`
	Memory  int64         `json:"memory"`  // bytes that it has in memory
	Command string        `json:"command"` // its arguments, or its name in brackets
}
