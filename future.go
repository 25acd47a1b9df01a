package banger

import "time"

// Values of RestartPolicy.Name.
const (
	RestartNo        = "no"
	RestartOnFailure = "on-failure"
	RestartAlways    = "always"
)

// RestartPolicy says whether a VM starts again after it has ended. The zero value means RestartNo.
type RestartPolicy struct {
	Name string `json:"name"`
	// Max is how often a VM with RestartOnFailure starts again. 0 means without a limit.
	Max int `json:"max,omitempty"`
}

// maxRestarts is the maximum of RestartPolicy.Max.
const maxRestarts = 1_000_000

// Active reports whether a VM with this policy may start again.
func (p RestartPolicy) Active() bool { return p.Name == RestartOnFailure || p.Name == RestartAlways }

// Check returns an *Error of CodeInvalid if p is no policy.
func (p RestartPolicy) Check() error {
	switch {
	case p.Name == "unless-stopped":
		return Errorf(CodeInvalid, "restart is unless-stopped, but must be no, on-failure[:N] or always").
			WithHint("always starts a VM that was stopped again when the daemon starts, and not before")
	case p.Name != "" && p.Name != RestartNo && !p.Active():
		return Errorf(CodeInvalid, "restart is %.40q, but must be no, on-failure[:N] or always", p.Name)
	case p.Max < 0 || p.Max > maxRestarts || p.Max > 0 && p.Name != RestartOnFailure:
		return Errorf(CodeInvalid, "restart is %.40q with the number %d, but only on-failure has a number, up to %d", p.Name,
			p.Max, maxRestarts)
	}
	return nil
}

// Values of Timer.Action and Due.Action.
const (
	ActionRemove  = "rm"
	ActionStop    = "stop"
	ActionSuspend = "suspend"
	ActionStart   = "start" // only of a Due: the restart policy
)

// Timer says what is done with a VM after a time. The zero value means that nothing is done.
type Timer struct {
	Seconds int64  `json:"seconds"`
	Action  string `json:"action"`
}

// maxTimer is the maximum of a timer.
const maxTimer = 10 * 365 * 24 * time.Hour

// TimerActions returns what can be done with a VM when its time to live is over, or, with idle, when it is idle. The
// first action is the default.
func TimerActions(idle bool) []string {
	if idle {
		return []string{ActionSuspend, ActionStop}
	}
	return []string{ActionStop, ActionRemove, ActionSuspend}
}

// After returns the timer's time.
func (t Timer) After() time.Duration { return time.Duration(t.Seconds) * time.Second }

// Check returns an *Error of CodeInvalid if t is no time to live or, with idle, no time of idleness.
func (t Timer) Check(idle bool) error {
	if t == (Timer{}) {
		return nil
	}
	field := "ttl"
	if idle {
		field = "idle"
	}
	if t.Seconds < 1 || t.Seconds > int64(maxTimer/time.Second) {
		return Errorf(CodeInvalid, "%s is %d seconds, but must be between 1 and %d", field, t.Seconds, maxTimer/time.Second)
	}
	return oneOf("the action of "+field, t.Action, TimerActions(idle))
}

// checkFuture checks the fields that say what happens to the VM later.
func (s *Spec) checkFuture() error {
	if err := s.Restart.Check(); err != nil {
		return err
	}
	if s.AutoRemove && s.Restart.Active() {
		return Errorf(CodeInvalid, "conflicting options: a VM that is removed when it ends cannot start again").
			WithHint("leave out --rm or --restart")
	}
	if s.Ready != nil {
		if err := s.Ready.Validate(); err != nil {
			return err
		}
	}
	if err := s.TTL.Check(false); err != nil {
		return err
	}
	if err := s.Idle.Check(true); err != nil {
		return err
	}
	if s.Nested != "" && (s.TTL.Action == ActionSuspend || s.Idle.Action == ActionSuspend) {
		return Errorf(CodeInvalid, "ttl or idle suspends the VM, but a VM with --nested cannot be suspended").
			WithHint("stop it instead, such as --idle 15m=stop")
	}
	return nil
}

// Due says what banger will do with a VM by itself.
type Due struct {
	Action string `json:"action"` // ActionRemove, ActionStop, ActionSuspend or ActionStart
	// At is when that happens. It is zero for what happens when the VM has been idle for Idle seconds.
	At   time.Time `json:"at,omitzero"`
	Idle int64     `json:"idle,omitempty"`
	// Blocked says why it does not happen, for a person. It is "" if it does.
	Blocked string `json:"blocked,omitempty"`
}

// Sizes are what a VM gets when it boots.
type Sizes struct {
	CPUs   int   `json:"cpus"`
	CPU    int64 `json:"cpu,omitempty"` // as Confinement.CPU
	Memory int64 `json:"memory"`        // bytes
}

// Update is what a user wants to change of a VM: the body of PATCH /v1/vms/{vm}. What is nil stays as it is. CPUs
// without CPU removes the bound of what all commands use together.
type Update struct {
	CPUs    *int           `json:"cpus,omitempty"`
	CPU     int64          `json:"cpu,omitempty"`
	Memory  *int64         `json:"memory,omitempty"`
	Restart *RestartPolicy `json:"restart,omitempty"`
	TTL     *Timer         `json:"ttl,omitempty"`
	Idle    *Timer         `json:"idle,omitempty"`
}
