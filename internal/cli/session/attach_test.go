package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"banger"
	"banger/internal/frame"
)

func TestDetachKeysAreThoseOfDocker(t *testing.T) {
	for keys, want := range map[string]string{
		"ctrl-p,ctrl-q": "\x10\x11", "CTRL-a,d": "\x01d",
		"ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_": "\x00\x1b\x1c\x1d\x1e\x1f",
		"x": "x", "": "",
	} {
		if got, err := ParseDetachKeys(keys); err != nil || string(got) != want {
			t.Errorf("%q is %q, %v", keys, got, err)
		}
	}
	for _, keys := range []string{"ctrl-", "ctrl-1", "ab", "ctrl-p,", ",", "ctrl-p ctrl-q", "é"} {
		if got, err := ParseDetachKeys(keys); banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("%q is %q, %v", keys, got, err)
		}
	}
}

func TestWhatIsTypedReachesTheCommandUnlessItLeaves(t *testing.T) {
	for _, tt := range []struct {
		keys  string
		typed []string // one read each
		out   string
		leave bool
	}{
		{"", []string{"\x10\x11"}, "\x10\x11", false},
		{"\x10\x11", []string{"abc", "\x10", "\x11more"}, "abc", true},
		{"\x10\x11", []string{"a\x10b\x10"}, "a\x10b", false},
		{"\x10\x11", []string{"\x10\x10\x11"}, "\x10", true},
		{"\x10\x11", []string{"\x11\x10", "\x12"}, "\x11\x10\x12", false},
		{"q", []string{"abq"}, "ab", true},
		{"qqx", []string{"qq", "y", "qqx"}, "qqy", true},
	} {
		d, out, left := detacher{keys: []byte(tt.keys)}, "", false
		for _, p := range tt.typed {
			typed, leave := d.feed([]byte(p))
			out += string(typed)
			if left = leave; left {
				break
			}
		}
		if out != tt.out || left != tt.leave {
			t.Errorf("with the keys %q, %q reaches the command as %q; it leaves: %v", tt.keys, tt.typed, out, left)
		}
	}
}

func TestAnAttachedClientShowsOutputAndReturnsTheStatus(t *testing.T) {
	for name, tt := range map[string]struct {
		end    any
		kind   frame.Type
		status int
		err    string
	}{
		"an exit code": {banger.Session{Exit: &banger.Exit{Code: 3}}, frame.Exit, 3, ""},
		"a signal":     {banger.Session{Exit: &banger.Exit{Signal: 9}}, frame.Exit, 137, ""},
		"an end that nobody saw": {banger.Session{Reason: "the VM \x1b ended"}, frame.Exit, 0,
			"how the command has ended is not known: the VM \\x1b ended"},
		"an error": {banger.Error{Code: banger.CodeNotFound, Message: "no session x"}, frame.Error, 0, "no session x"},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			go func() { // ends with the frames
				frame.Write(far, frame.Started, nil)
				frame.Write(far, frame.Screen, []byte("screen "))
				frame.Write(far, frame.Stamp, make([]byte, frame.StampSize))
				frame.Write(far, frame.Stdout, []byte("out"))
				frame.Write(far, frame.Stderr, []byte("err"))
				data, _ := json.Marshal(tt.end)
				frame.Write(far, tt.kind, data)
			}()
			var out, errs bytes.Buffer
			status, err := Attach(t.Context(), near, Stdio{Out: &out, Err: &errs}, Attachment{}, "box", nil)
			if out.String() != "screen out" || errs.String() != "err" || status != tt.status {
				t.Errorf("the status is %d, the output %q and %q", status, &out, &errs)
			}
			if got := errors.Join(err); (got == nil) != (tt.err == "") || got != nil && !strings.Contains(got.Error(), tt.err) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// TestAClosedTerminalLeavesWhatOutlivesIt says which signals end a client, instead of reaching its command.
func TestAClosedTerminalLeavesWhatOutlivesIt(t *testing.T) {
	for name, tt := range map[string]struct {
		s    *session
		want []os.Signal
	}{
		"an exec":    {&session{}, nil},
		"run":        {&session{attached: true, how: Attachment{Main: true, Ends: true}}, nil},
		"run --keep": {&session{attached: true, how: Attachment{Main: true}}, []os.Signal{syscall.SIGHUP, syscall.SIGTERM}},
		"a session":  {&session{attached: true}, []os.Signal{syscall.SIGHUP, syscall.SIGTERM}},
		"one that only looks": {&session{attached: true, how: Attachment{ReadOnly: true}},
			[]os.Signal{os.Interrupt, syscall.SIGHUP, syscall.SIGTERM}},
	} {
		var got []os.Signal
		for _, sig := range []os.Signal{os.Interrupt, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1} {
			if tt.s.leaves(sig) {
				got = append(got, sig)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s is left by %v", name, got)
		}
	}
}
