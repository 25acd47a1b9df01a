package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"banger"
)

// port returns the port of an address.
func port(t *testing.T, addr string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAnAttemptSucceedsOrSaysWhyNot(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.RequestURI() {
		case "/ok?a=b":
		case "/moved":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		default:
			http.Error(w, "no", http.StatusServiceUnavailable)
		}
	}))
	defer web.Close()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the listener
		for conn, err := mute.Accept(); err == nil; conn, err = mute.Accept() {
			fmt.Fprint(conn, "220 mail\r\n")
			conn.Close()
		}
	}()
	defer mute.Close()
	six, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer six.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	at := port(t, web.Listener.Addr().String())
	file := filepath.Join(t.TempDir(), "ready")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(_ context.Context, args []string) (banger.Exit, string, error) {
		if args[len(args)-1] == "true" {
			return banger.Exit{}, "", nil
		}
		return banger.Exit{Code: 3}, "it said so\n", nil
	}
	for name, tt := range map[string]struct {
		probe banger.Probe
		want  string // "": it succeeds
	}{
		"a port":                {banger.Probe{Check: "tcp:" + at}, ""},
		"a port of IPv6 alone":  {banger.Probe{Check: "tcp:" + port(t, six.Addr().String())}, ""},
		"a closed port":         {banger.Probe{Check: "tcp:" + port(t, gone.Addr().String())}, "nothing answers on port "},
		"HTTP":                  {banger.Probe{Check: "http:" + at + "/ok?a=b"}, ""},
		"HTTP that leads away":  {banger.Probe{Check: "http:" + at + "/moved"}, ""},
		"HTTP with an error":    {banger.Probe{Check: "http:" + at}, " answers / with 503 Service Unavailable"},
		"what is not HTTP":      {banger.Probe{Check: "http:" + port(t, mute.Addr().String())}, "does not speak HTTP"},
		"a file":                {banger.Probe{Check: "file:" + file}, ""},
		"an absent file":        {banger.Probe{Check: "file:/no/such"}, "there is no file /no/such"},
		"a command":             {banger.Probe{Check: "cmd:true"}, ""},
		"a command that fails":  {banger.Probe{Check: "cmd:false"}, `the command "false" ended with 3: it said so`},
		"a command of words":    {banger.Probe{Args: []string{"x", "true"}}, ""},
		"words that say it not": {banger.Probe{Args: []string{"x"}}, `the command "x" ended with 3`},
	} {
		if err := tt.probe.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		err := New(tt.probe, run, func() {}).try(t.Context())
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// until waits until a watch is in a state.
func until(t *testing.T, w *Watch, ready bool, reason string) {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		state, changed := w.State()
		if state.Ready == ready && strings.Contains(state.Reason, reason) && !state.Since.IsZero() {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("it is %+v", state)
		}
	}
}

// TestAWatchFollowsACommand has a command that becomes ready, fails for a while, and ends.
func TestAWatchFollowsACommand(t *testing.T) {
	var fails atomic.Bool
	var tries atomic.Int32
	fails.Store(true)
	w := New(banger.Probe{Check: "cmd:x", Interval: time.Millisecond, Retries: 3},
		func(context.Context, []string) (banger.Exit, string, error) {
			tries.Add(1)
			if fails.Load() {
				return banger.Exit{Code: 1}, "not yet", nil
			}
			return banger.Exit{}, "", nil
		}, func() {})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // ends with ctx
		w.Follow(ctx)
		close(done)
	}()
	until(t, w, false, "not yet")
	fails.Store(false)
	if err := w.Await(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	before := tries.Load()
	fails.Store(true)
	until(t, w, false, "not yet")
	if n := tries.Load() - before; n < 3 {
		t.Errorf("after %d failures it is not ready", n)
	}
	fails.Store(false)
	until(t, w, true, "")
	cancel()
	<-done
	until(t, w, false, "does not run")
}

func TestWhoWaitsLearnsWhy(t *testing.T) {
	w := New(banger.Probe{Check: "cmd:x"}, nil, func() {})
	w.set(false, "a reason")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := w.Await(ctx, nil); banger.CodeOf(err) != banger.CodeTimeout || !strings.Contains(err.Error(), "a reason") {
		t.Errorf("after a time: %v", err)
	}
	over := make(chan struct{})
	close(over)
	if err := w.Await(t.Context(), over); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("after the end: %v", err)
	}
}

// TestWhatCannotStartNowSaysNothing has a guest that is being suspended.
func TestWhatCannotStartNowSaysNothing(t *testing.T) {
	var busy atomic.Bool
	w := New(banger.Probe{Check: "cmd:x", Interval: time.Millisecond, Retries: 1},
		func(context.Context, []string) (banger.Exit, string, error) {
			if busy.Load() {
				return banger.Exit{}, "", banger.Errorf(banger.CodeConflict, "the VM is being suspended")
			}
			return banger.Exit{}, "", nil
		}, func() {})
	tried := make(chan struct{}, 1)
	run := w.run
	w.run = func(ctx context.Context, args []string) (banger.Exit, string, error) {
		exit, said, err := run(ctx, args)
		if err != nil {
			select {
			case tried <- struct{}{}:
			default:
			}
		}
		return exit, said, err
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // ends with ctx
		w.Follow(ctx)
		close(done)
	}()
	defer func() { cancel(); <-done }()
	until(t, w, true, "")
	busy.Store(true)
	for range 3 {
		<-tried
	}
	if state, _ := w.State(); !state.Ready {
		t.Errorf("it is %+v", state)
	}
}

func TestProbesThatCannotBeTriedAreRefused(t *testing.T) {
	for _, p := range []banger.Probe{{}, {Check: "tcp:"}, {Check: "tcp:0"}, {Check: "tcp:65536"}, {Check: "tcp:80/x"},
		{Check: "http:x"}, {Check: "http:80/a b"}, {Check: "http:80/\r\nX: y"}, {Check: "file:relative"}, {Check: "cmd:"},
		{Check: "udp:53"}, {Check: "80"}, {Check: "tcp:80", Interval: -1}, {Check: "tcp:80", Timeout: 48 * time.Hour},
		{Check: "tcp:80", Retries: -1}, {Check: "cmd:a\x00b"}} {
		if err := p.Validate(); banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("%+v: %v", p, errors.Join(err))
		}
	}
}
