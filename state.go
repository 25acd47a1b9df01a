package banger

// State is the stage of a VM's life.
type State string

// The states of a VM.
const (
	StateCreated  State = "created"
	StateStarting State = "starting"
	StateRunning  State = "running"
	StatePaused   State = "paused"
	StateStopping State = "stopping"
	StateStopped  State = "stopped"
	StateFailed   State = "failed"

	// StateUnreachable is the state of a VM whose process lives but does not answer a daemon that has just started. The
	// VM gets its stored state back when it answers.
	StateUnreachable State = "unreachable"
)

// next lists the legal transitions. Every state may change to failed. Only a VM at rest may be removed (see AtRest).
var next = map[State][]State{
	StateCreated:  {StateStarting, StateFailed},
	StateStarting: {StateRunning, StateStopping, StateStopped, StateFailed},
	StateRunning:  {StateStarting, StatePaused, StateStopping, StateStopped, StateFailed},
	StatePaused:   {StateRunning, StateStopping, StateStopped, StateFailed},
	StateStopping: {StateStopped, StateFailed},
	StateStopped:  {StateStarting, StateFailed},
	StateFailed:   {StateStarting},

	StateUnreachable: {StateRunning, StatePaused, StateStopping, StateStopped, StateFailed},
}

// CanBecome reports whether a VM in state s may change to t.
func (s State) CanBecome(t State) bool {
	for _, n := range next[s] {
		if n == t {
			return true
		}
	}
	return false
}

// AtRest reports whether no VMM process belongs to a VM in state s.
func (s State) AtRest() bool {
	return s == StateCreated || s == StateStopped || s == StateFailed
}
