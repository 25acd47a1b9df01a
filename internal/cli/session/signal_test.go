package session

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/frame"
)

// TestASignalForAGuestThatDoesNotAnswerEndsTheClient also checks that a signal for a guest that answers does not end
// the client, because then the command decides.
func TestASignalForAGuestThatDoesNotAnswerEndsTheClient(t *testing.T) {
	// A signal that comes too early must not end this process.
	guard := make(chan os.Signal, 16)
	signal.Notify(guard, syscall.SIGTERM)
	defer signal.Stop(guard)
	for name, tt := range map[string]struct {
		ping   error
		status int
		err    string // "" means no error
	}{
		"it answers": {nil, 7, ""},
		"it does not answer": {errors.New("no answer came"), 0,
			"the guest does not answer, so the signal has not reached the command: no answer came"},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			defer far.Close()
			pinged := make(chan struct{})
			s := session{conn: near, stdout: io.Discard, stderr: io.Discard, ping: func(context.Context) error {
				defer close(pinged)
				return tt.ping
			}}
			type result struct {
				status int
				err    error
			}
			done := make(chan result, 1)
			go func() {
				status, err := s.run(t.Context())
				done <- result{status, err}
			}()
			must(t, frame.Write(far, frame.Started, nil)) // from here on the session receives signals
			go io.Copy(io.Discard, far)
			must(t, syscall.Kill(os.Getpid(), syscall.SIGTERM))
			<-pinged
			if tt.err == "" {
				must(t, frame.Write(far, frame.Exit, []byte(`{"code":7}`)))
			}
			select {
			case r := <-done:
				if r.status != tt.status || tt.err == "" && r.err != nil ||
					tt.err != "" && (r.err == nil || !strings.Contains(r.err.Error(), tt.err)) {
					t.Errorf("it ends with %d, %v", r.status, r.err)
				}
			case <-time.After(30 * time.Second):
				t.Error("it does not end")
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
