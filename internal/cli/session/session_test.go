package session

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"banger"
	"banger/internal/frame"
)

// TestACommandMustStartInTime checks that a silent agent ends the wait for the start of a command, and that a silent
// command does not.
func TestACommandMustStartInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		if _, err := (&session{conn: near}).frames(); banger.CodeOf(err) != banger.CodeGuest {
			t.Errorf("a silent agent gives %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		go func() {
			frame.Write(far, frame.Started, nil)
			time.Sleep(2 * startTime) // on the test's own clock
			frame.Write(far, frame.Exit, []byte("{}"))
			far.Close()
		}()
		if status, err := (&session{conn: near, stdout: io.Discard}).frames(); status != 0 || err != nil {
			t.Errorf("a silent command gives %d, %v", status, err)
		}
	})
}
