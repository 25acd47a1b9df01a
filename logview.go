package banger

import "time"

// LogView says what is wanted of the output that a VM has.
type LogView struct {
	Tail   int  // lines from the end of what the fields below select; negative: all
	Follow bool // go on until the VM ends, or until Until
	// Since and Until are the first and the last time that is wanted. The zero value is no bound.
	Since, Until time.Time
	Position     uint64 // only what comes behind this many bytes of the output
	Stamps       bool   // a frame with position and time comes before each frame of data
}

// Bounded reports whether v needs times or positions, which a console does not have.
func (v LogView) Bounded() bool { return !v.Since.IsZero() || !v.Until.IsZero() || v.Position > 0 }

// Check returns an error if v can select nothing.
func (v LogView) Check() error {
	if !v.Since.IsZero() && !v.Until.IsZero() && v.Since.After(v.Until) {
		return Errorf(CodeInvalid, "since is %s, which is after until, %s", v.Since.UTC().Format(time.RFC3339Nano),
			v.Until.UTC().Format(time.RFC3339Nano)).WithHint("exchange the two times")
	}
	return nil
}
