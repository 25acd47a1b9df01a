package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"banger"
	"banger/internal/frame"
)

const (
	toldSilent = "banger: box has not answered for 30 s (its VM may be frozen; Ctrl-C ends this command, " +
		"\"banger stop box\" ends the VM)\n"
	toldAgain = "banger: box answers again\n"
)

// watched watches a VM in a synctest bubble. The VM's agent answers with the result of ping. told returns what the
// user was told.
func watched(t *testing.T, ping func(context.Context) error) (s *Silence, told func() string) {
	t.Helper()
	var screen screen
	s = NewSilence("box", "Ctrl-C ends this command", ping, &screen)
	t.Cleanup(s.Start(t.Context()))
	return s, func() string {
		synctest.Wait()
		return screen.take()
	}
}

// screen records what a user sees.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// take returns what was written since the last call.
func (s *screen) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.text.Reset()
	return s.text.String()
}

// frozen returns when ctx ends, or after 30 s as the daemon does.
func frozen(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(30 * time.Second):
		return banger.Errorf(banger.CodeTimeout, "the guest's agent does not answer")
	}
}

func TestAFrozenGuestIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		thawed := make(chan struct{})
		_, warned := watched(t, func(ctx context.Context) error {
			select {
			case <-thawed:
				return nil
			default:
			}
			return frozen(ctx)
		})
		time.Sleep(pingEvery + silenceTime - time.Millisecond) // on the test's own clock, as in this whole file
		if got := warned(); got != "" {
			t.Errorf("before its time the user is told %q", got)
		}
		time.Sleep(time.Millisecond)
		if got := warned(); got != toldSilent {
			t.Errorf("the user is told %q", got)
		}
		time.Sleep(time.Hour)
		if got := warned(); got != "" {
			t.Errorf("the user is told again: %q", got)
		}
		close(thawed)
		time.Sleep(silenceTime + pingAgain)
		if got := warned(); got != toldAgain {
			t.Errorf("the user is told %q", got)
		}
	})
}

// TestOutputIsAnAnswer checks that output of the VM ends the silence at once, and that the agent is not asked while
// output comes.
func TestOutputIsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		s, warned := watched(t, func(ctx context.Context) error { asked.Add(1); return frozen(ctx) })
		for range 100 {
			time.Sleep(pingEvery - time.Second)
			s.Hear()
		}
		if got := warned(); got != "" || asked.Load() != 0 {
			t.Errorf("while output comes the agent is asked %d times, and the user is told %q", asked.Load(), got)
		}
		time.Sleep(pingEvery + silenceTime)
		if got := warned(); got != toldSilent {
			t.Errorf("the user is told %q", got)
		}
		s.Hear()
		if got := warned(); got != toldAgain {
			t.Errorf("the user is told %q", got)
		}
	})
}

// TestAHealthyGuestIsAskedRarely also checks that the user is told nothing about such a guest, nor about one whose
// state is unknown.
func TestAHealthyGuestIsAskedRarely(t *testing.T) {
	for name, answer := range map[string]error{
		"it answers":    nil,
		"no daemon":     banger.Errorf(banger.CodeUnavailable, "the daemon does not answer"),
		"it is paused":  banger.Errorf(banger.CodeConflict, "it is paused"),
		"it is removed": banger.Errorf(banger.CodeNotFound, "there is no VM"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int64
				_, warned := watched(t, func(context.Context) error { asked.Add(1); return answer })
				time.Sleep(time.Hour)
				if got := warned(); got != "" || asked.Load() != int64(time.Hour/pingEvery) {
					t.Errorf("within an hour the agent is asked %d times, and the user is told %q", asked.Load(), got)
				}
			})
		})
	}
}

// TestAnAgentThatIsRefusedEachTime checks that a VMM which reports a silent guest at once gets as much time as a VMM
// which does not.
func TestAnAgentThatIsRefusedEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := banger.Errorf(banger.CodeGuest, "the vsock does not answer")
		_, warned := watched(t, func(context.Context) error { return dead })
		time.Sleep(pingEvery + silenceTime - time.Millisecond)
		if got := warned(); got != "" {
			t.Errorf("before its time the user is told %q", got)
		}
		time.Sleep(pingAgain)
		if got := warned(); got != toldSilent {
			t.Errorf("the user is told %q", got)
		}
	})
}

// TestCtrlCOfARawTerminalEndsAClientOfASilentGuest checks the byte of Ctrl-C, which raises no signal on a raw
// terminal. The byte belongs to the command as long as the guest answers.
func TestCtrlCOfARawTerminalEndsAClientOfASilentGuest(t *testing.T) {
	for name, silent := range map[string]bool{"it answers": false, "it is silent": true} {
		t.Run(name, func(t *testing.T) {
			keys, terminal, err := os.Pipe()
			must(t, err)
			defer keys.Close()
			near, far := net.Pipe()
			defer far.Close()
			s := session{conn: near, stdin: keys, stdout: io.Discard, stderr: io.Discard, tty: true,
				escaped: make(chan error, 1), silence: NewSilence("box", "", frozen, io.Discard)}
			s.silence.silent.Store(silent)
			type result struct {
				status int
				err    error
			}
			done := make(chan result, 1)
			go func() {
				status, err := s.run(t.Context())
				done <- result{status, err}
			}()
			_, err = terminal.Write([]byte{ctrlC})
			must(t, err)
			want := result{130, ErrInterrupted}
			if !silent {
				kind, data, err := frame.NewReader(far).Next()
				if err != nil || kind != frame.Stdin || !slices.Equal(data, []byte{ctrlC}) {
					t.Errorf("the command gets frame %d, %q, %v", kind, data, err)
				}
				must(t, frame.Write(far, frame.Exit, []byte(`{"code":7}`)))
				want = result{status: 7}
			}
			select {
			case r := <-done:
				if r.status != want.status || !errors.Is(r.err, want.err) {
					t.Errorf("it ends with %d, %v", r.status, r.err)
				}
			case <-time.After(30 * time.Second):
				t.Error("it does not end")
			}
			terminal.Close()
		})
	}
}
