package banger

import "time"

// SessionSpec is what a client wants of a session, a command in a VM that outlives its clients: the body of
// POST /v1/vms/{id}/sessions.
type SessionSpec struct {
	Name    string        `json:"name,omitempty"` // unique in the VM; "": made of the command
	Command Exec          `json:"command"`
	Restart RestartPolicy `json:"restart,omitzero"`
	Ready   *Probe        `json:"ready,omitempty"`
}

// Check returns an *Error of CodeInvalid when s cannot be started at all.
func (s *SessionSpec) Check() error {
	if s.Name != "" {
		if err := CheckSession(s.Name); err != nil {
			return err
		}
	}
	if s.Command.Main {
		return Errorf(CodeInvalid, "a session is not the VM's main command")
	}
	if err := s.Restart.Check(); err != nil {
		return err
	}
	if s.Ready != nil {
		if err := s.Ready.Validate(); err != nil {
			return err
		}
	}
	return s.Command.Check()
}

// CheckSession returns an *Error of CodeInvalid unless name can be the name of a session.
func CheckSession(name string) error { return checkLabel(name, "name of a session") }

// Values of Session.State.
const (
	SessionRunning = "running"
	SessionWaiting = "waiting" // its command has ended, and starts again after a pause
	SessionEnded   = "ended"
)

// Session is a session as its guest tells it. The values of its environment are hidden.
type Session struct {
	SessionSpec
	State   string    `json:"state"`
	PID     int       `json:"pid,omitempty"` // in the guest, while it runs
	Created time.Time `json:"created"`
	Started time.Time `json:"started"`        // of the latest run of the command
	Ended   time.Time `json:"ended,omitzero"` // of the latest run that has ended
	// Exit is how the latest run has ended. It is nil before, and for a command that was cut off by the end of its guest.
	Exit     *Exit  `json:"exit,omitempty"`
	Reason   string `json:"reason,omitempty"` // what is to be said about the latest end, for a person
	Restarts int    `json:"restarts"`
	// Readiness is what the ready probe has seen; nil without one.
	Readiness *Readiness `json:"readiness,omitempty"`
	// PeakMemory is the most memory that the command and its children have used at once, in bytes; 0: not known.
	PeakMemory int64 `json:"peak_memory,omitempty"`
	// First and End are positions in the output: of the first byte that can still be read, and behind the last.
	First uint64 `json:"first"`
	End   uint64 `json:"end"`
	Lost  uint64 `json:"lost,omitempty"` // bytes of output for which the disk had no room
}

// SessionChange is one line of the stream of what happens to the sessions of a VM: the whole state, a session that has
// changed or is new, or one that is gone. Output is no change: it has a stream of its own.
type SessionChange struct {
	Cursor   string    `json:"cursor,omitempty"` // a client that was cut off goes on behind it
	Session  *Session  `json:"session,omitempty"`
	Removed  string    `json:"removed,omitempty"` // the name of a session that is gone
	State    bool      `json:"state,omitempty"`   // Sessions are all there are; what the client knew before is void
	Sessions []Session `json:"sessions,omitempty"`
	Error    *Error    `json:"error,omitempty"` // why the stream ends: the VM was suspended, or has ended
}

// SessionView says what a client that attaches to a session gets, and may do.
type SessionView struct {
	// Position is that of the first byte of output that the client gets; nil means what is written from now on.
	Position *uint64 `json:"position,omitempty"`
	Screen   bool    `json:"screen,omitempty"`    // first draw the screen of a session with a terminal; no Position then
	ReadOnly bool    `json:"read_only,omitempty"` // what the client sends is dropped
	// Log selects output for a reader that sends nothing, instead of Position.
	Log  *LogView `json:"log,omitempty"`
	Rows uint16   `json:"rows,omitempty"` // the size of the client's terminal; 0: it has none
	Cols uint16   `json:"cols,omitempty"`
}

// Check returns an *Error of CodeInvalid if v contradicts itself.
func (v SessionView) Check() error {
	if v.Screen && (v.Position != nil || v.Log != nil) {
		return Errorf(CodeInvalid, "a screen shows the present, so it goes without a position")
	}
	if v.Log == nil {
		return nil
	}
	return v.Log.Check()
}
