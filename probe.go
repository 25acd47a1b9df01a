package banger

import (
	"path"
	"strconv"
	"strings"
	"time"
)

// Probe says how to see whether a command does its work. Zero times and numbers mean the defaults.
type Probe struct {
	// Check is tcp:PORT, http:PORT[/PATH], file:PATH or cmd:COMMAND. It is "" if there are Args.
	Check    string        `json:"check,omitempty"`
	Args     []string      `json:"args,omitempty"`        // a command without a shell
	Interval time.Duration `json:"interval_ns,omitempty"` // between two attempts, once it is ready
	Timeout  time.Duration `json:"timeout_ns,omitempty"`  // of one attempt
	Retries  int           `json:"retries,omitempty"`     // this many failures in a row mean that it is not ready
	// StartPeriod is the time in which failures do not count, from the command's start on.
	StartPeriod time.Duration `json:"start_period_ns,omitempty"`
}

// maxProbe bounds the times of a probe.
const maxProbe = 24 * time.Hour

// Validate returns an *Error of CodeInvalid if p cannot be tried.
func (p Probe) Validate() error {
	for _, d := range []time.Duration{p.Interval, p.Timeout, p.StartPeriod} {
		if d < 0 || d > maxProbe || d > 0 && d < time.Millisecond {
			return Errorf(CodeInvalid, "a time of the ready probe is %s, but must be 0, or between 1 ms and 24 h", d)
		}
	}
	if p.Retries < 0 || p.Retries > 1000 {
		return Errorf(CodeInvalid, "the ready probe has %d retries, but must have 0 to 1000", p.Retries)
	}
	if len(p.Args) > 0 {
		return checkWords("ready probe", p.Args)
	}
	kind, rest, _ := strings.Cut(p.Check, ":")
	ok := rest != "" && checkWords("ready probe", []string{rest}) == nil
	switch kind {
	case "tcp", "http":
		port, at, slash := strings.Cut(rest, "/")
		n, err := strconv.ParseUint(port, 10, 16)
		ok = ok && err == nil && n > 0 && !(slash && kind == "tcp") && !strings.ContainsAny(at, " \r\n")
	case "file":
		ok = ok && path.IsAbs(rest)
	case "cmd":
	default:
		ok = false
	}
	if !ok {
		return Errorf(CodeInvalid, "the ready probe is %.80q, but must be tcp:PORT, http:PORT/PATH, file:PATH or cmd:COMMAND",
			p.Check)
	}
	return nil
}

// Readiness is what a probe has seen.
type Readiness struct {
	Ready  bool      `json:"ready"`
	Since  time.Time `json:"since,omitzero"`   // when that has begun
	Reason string    `json:"reason,omitempty"` // why the latest attempt has failed, for a person
}
