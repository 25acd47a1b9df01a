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

	StateSuspending State = "suspending"
	StateResuming   State = "resuming" // from the snapshot of a suspension
	// StateSuspended is the state of a VM whose memory is on disk. It has no process, and goes on when it is used.
	StateSuspended State = "suspended"

	// StateUnreachable is the state of a VM whose process lives but does not answer a daemon that has just started. The
	// VM gets its stored state back when it answers.
	StateUnreachable State = "unreachable"
)

// next lists the legal transitions. Every state may change to failed. Only a VM at rest may be removed (see AtRest).
var next = map[State][]State{
	StateCreated:  {StateStarting, StateFailed},
	StateStarting: {StateRunning, StateStopping, StateStopped, StateFailed},
	StateRunning:  {StateStarting, StatePaused, StateSuspending, StateSuspended, StateStopping, StateStopped, StateFailed},
	StatePaused:   {StateRunning, StateSuspended, StateStopping, StateStopped, StateFailed},
	StateStopping: {StateStopped, StateFailed},
	StateStopped:  {StateStarting, StateFailed},
	StateFailed:   {StateStarting},

	StateSuspending: {StateRunning, StateSuspended, StateStopping, StateStopped, StateFailed},
	StateResuming:   {StateRunning, StateSuspended, StateStopping, StateStopped, StateFailed},
	StateSuspended:  {StateResuming, StateStarting, StateStopping, StateStopped, StateFailed},

	StateUnreachable: {StateRunning, StatePaused, StateSuspending, StateResuming, StateSuspended, StateStopping,
		StateStopped, StateFailed},
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

// AtRest reports whether a VM in state s was never started or has ended, so only its disk is left. A suspended VM has
// not ended.
func (s State) AtRest() bool {
	return s == StateCreated || s == StateStopped || s == StateFailed
}

// Lives reports whether a VM in state s has a VMM that serves it.
func (s State) Lives() bool { return s == StateRunning || s == StatePaused }
