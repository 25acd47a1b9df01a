package spec

import (
	"time"

	"github.com/spf13/pflag"

	"banger"
)

// Ready is a user's words for a ready probe.
type Ready struct {
	Probe  banger.Probe
	Within time.Duration // how long a command waits until it is ready

	shell string // docker's --health-cmd
	none  bool
}

// Register adds the flags of a ready probe.
func (r *Ready) Register(fs *pflag.FlagSet) {
	fs.StringVar(&r.Probe.Check, "ready", "", "wait until it is ready: tcp:PORT, http:PORT/PATH, file:PATH or cmd:COMMAND")
	fs.Var(newTime(&r.Within, time.Minute), "ready-timeout", "how long to wait for --ready")
	fs.StringVar(&r.shell, "health-cmd", "", "the same as --ready cmd:COMMAND, without waiting")
	fs.Var(newTime(&r.Probe.Interval, 0), "health-interval", "time between two probes of what is ready (default: 10s)")
	fs.Var(newTime(&r.Probe.Timeout, 0), "health-timeout", "time of one probe (default: 5s)")
	fs.Var(newTime(&r.Probe.StartPeriod, 0), "health-start-period", "time in which failures do not count")
	fs.IntVar(&r.Probe.Retries, "health-retries", 0, "failures in a row that mean not ready (default: 3)")
}

// RegisterNone adds the flag that takes an image's health check away.
func (r *Ready) RegisterNone(fs *pflag.FlagSet) {
	fs.BoolVar(&r.none, "no-healthcheck", false, "do not probe, whatever the image says")
}

// Waits reports whether a command waits until the probe succeeds.
func (r *Ready) Waits() bool { return r.Probe.Check != "" && r.shell == "" }

// Resolve returns the probe, which is nil without one, and whether there is to be none.
func (r *Ready) Resolve() (p *banger.Probe, none bool, err error) {
	probe := r.Probe
	if r.shell != "" {
		if probe.Check != "" {
			return nil, false, banger.Errorf(banger.CodeInvalid, "conflicting options: --ready and --health-cmd").
				WithHint("leave out one of them")
		}
		probe.Check = "cmd:" + r.shell
	}
	if probe.Check == "" {
		return nil, r.none, nil
	}
	if r.none {
		return nil, false, banger.Errorf(banger.CodeInvalid, "conflicting options: a probe and --no-healthcheck").
			WithHint("leave out one of them")
	}
	return &probe, false, probe.Validate()
}

// timeFlag is a flag for a time such as 90s.
type timeFlag struct{ to *time.Duration }

func newTime(to *time.Duration, other time.Duration) timeFlag {
	*to = other
	return timeFlag{to}
}

func (f timeFlag) String() string {
	if f.to == nil || *f.to == 0 {
		return ""
	}
	return f.to.String()
}

func (timeFlag) Type() string { return "time" }

func (f timeFlag) Set(word string) error {
	d, err := time.ParseDuration(word)
	if err != nil || d < 0 {
		return banger.Errorf(banger.CodeInvalid, "it must be a time like 90s or 5m")
	}
	*f.to = d
	return nil
}
