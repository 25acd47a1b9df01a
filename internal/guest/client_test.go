package guest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/testing/processtest"

	"go.uber.org/goleak"

	"banger"
	"banger/internal/frame"
)

// fakeAgent returns a Client of an agent that answers each request with the function answer, over a new connection.
func fakeAgent(t testing.TB, answer func(Request, net.Conn)) Client {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	var wg sync.WaitGroup
	t.Cleanup(func() { wg.Wait(); goleak.VerifyNone(t, ignore) })
	return Client{Dial: func(context.Context) (net.Conn, error) {
		host, agent := processtest.SocketPair(t)
		wg.Go(func() {
			defer agent.Close()
			answerOne(t, agent, answer)
		})
		return host, nil
	}}
}

// answerOne reads a request and calls answer.
func answerOne(t testing.TB, c net.Conn, answer func(Request, net.Conn)) {
	typ, p, err := frame.NewReader(c).Next()
	if err != nil {
		return
	}
	var r Request
	if err := json.Unmarshal(p, &r); err != nil || typ != frame.Request {
		t.Errorf("the first frame is %d %q: %v", typ, p, err)
		return
	}
	answer(r, c)
}

// TestClientRequests: each call sends one request with its parameters.
func TestClientRequests(t *testing.T) {
	info := Info{Version: Version, Kernel: "6.12", UptimeMillis: 1500}
	exit := banger.Exit{Signal: 9}
	cfg := Config{Hostname: "box", StopSignal: 3, Network: &Network{Address: "10.0.0.2/24", DNS: []string{"10.0.0.1"}}}
	cmd := banger.Exec{Args: []string{"a", "b"}, User: "me", Main: true}
	got := make(chan Request, 1)
	c := fakeAgent(t, func(r Request, conn net.Conn) {
		got <- r
		if r.Op == OpWait {
			frame.WriteJSON(conn, frame.Exit, exit)
		} else {
			frame.WriteJSON(conn, frame.Response, info)
		}
	})
	must := func(want any) func(any, error) error {
		return func(v any, err error) error {
			if err == nil && !reflect.DeepEqual(v, want) {
				t.Errorf("the call answers %+v", v)
			}
			return err
		}
	}
	for _, tt := range []struct {
		call func(context.Context) error
		want Request
	}{
		{func(ctx context.Context) error { i, err := c.Ping(ctx); return must(info)(i, err) }, Request{Op: OpPing}},
		{func(ctx context.Context) error { i, err := c.Configure(ctx, cfg); return must(info)(i, err) },
			Request{Op: OpConfigure, Config: &cfg}},
		{func(ctx context.Context) error { return c.Start(ctx, cmd) }, Request{Op: OpStart, Exec: &cmd}},
		{func(ctx context.Context) error { return c.Signal(ctx, 15) }, Request{Op: OpSignal, Signal: 15}},
		{func(ctx context.Context) error { e, err := c.Wait(ctx); return must(exit)(e, err) }, Request{Op: OpWait}},
		{func(ctx context.Context) error { return c.Shutdown(ctx, 2500*time.Millisecond) },
			Request{Op: OpShutdown, Grace: 2500}},
		{func(ctx context.Context) error {
			conn, err := c.Exec(ctx, cmd)
			if err == nil {
				defer conn.Close()
			}
			return err
		}, Request{Op: OpExec, Exec: &cmd}},
	} {
		if err := tt.call(processtest.WithPatience(t)); err != nil {
			t.Errorf("%s: %v", tt.want.Op, err)
		}
		r := <-got
		if r.Config != nil { // TestTheTimeOfABoot
			r.Config.TimeUnixNano = 0
		}
		if !reflect.DeepEqual(r, tt.want) {
			t.Errorf("the agent got %+v", r)
		}
	}
}

// TestClientAnswers: the agent's own errors arrive with their code and hint. Any other answer is an error of
// CodeGuest, and uses no more memory than one frame.
func TestClientAnswers(t *testing.T) {
	claim := func(n uint32) []byte {
		return binary.BigEndian.AppendUint32([]byte{byte(frame.Response), 0, 0, 0}, n)
	}
	whole := func(t frame.Type, s string) []byte {
		b := make([]byte, frame.Header)
		frame.PutHeader(b, t, len(s))
		return append(b, s...)
	}
	for _, tt := range []struct {
		name, message string
		answer        []byte
		code          banger.Code
	}{
		{"its own error", "not now", whole(frame.Error, `{"code":"conflict","message":"not now"}`),
			banger.CodeConflict},
		{"a broken error", "broken error", whole(frame.Error, `{"code":`), banger.CodeGuest},
		{"a broken answer", "answer is broken", whole(frame.Response, `[1]`), banger.CodeGuest},
		{"an empty answer", "answer is broken", whole(frame.Response, ``), banger.CodeGuest},
		{"deep nesting", "answer is broken", whole(frame.Response, strings.Repeat("[", frame.Max)),
			banger.CodeGuest},
		{"another frame", "frame 10 instead of 6", whole(frame.Exit, `{}`), banger.CodeGuest},
		{"an unknown frame", "frame 200 instead of 6", whole(200, `{}`), banger.CodeGuest},
		{"half a frame", "did not answer", claim(10), banger.CodeGuest},
		{"the longest frame, missing", "did not answer", claim(frame.Max), banger.CodeGuest},
		{"a frame over the limit", "over the limit", claim(frame.Max + 1), banger.CodeGuest},
		{"a frame of 4 GiB", "over the limit", claim(1<<32 - 1), banger.CodeGuest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := fakeAgent(t, func(_ Request, conn net.Conn) {
				conn.Write(tt.answer)
				conn.(*net.UnixConn).CloseWrite()
			})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := c.Ping(processtest.WithPatience(t))
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), tt.message) || banger.CodeOf(err) != tt.code {
				t.Errorf("got %v (%s)", err, banger.CodeOf(err))
			}
			// Both ends and all their buffers are in this process.
			if n := after.TotalAlloc - before.TotalAlloc; n > 16*frame.Max {
				t.Errorf("the call allocated %d bytes", n)
			}
		})
	}
}

// TestCutConnectionsAreRepeated: a request that a guest may get twice is repeated while connections end, in any way,
// before an answer begins. Other requests are not repeated.
func TestCutConnectionsAreRepeated(t *testing.T) {
	cfg := Config{Seed: make([]byte, MinSeed)}
	for name, call := range map[string]struct {
		repeated bool
		make     func(Client, context.Context) error
	}{
		"ping":      {true, func(c Client, ctx context.Context) error { _, err := c.Ping(ctx); return err }},
		"configure": {true, func(c Client, ctx context.Context) error { _, err := c.Configure(ctx, cfg); return err }},
		"ready":     {true, func(c Client, ctx context.Context) error { return c.Ready(ctx) }},
		"restored":  {true, func(c Client, ctx context.Context) error { _, err := c.Restored(ctx, cfg); return err }},
		"start":     {false, func(c Client, ctx context.Context) error { return c.Start(ctx, banger.Exec{}) }},
		"signal":    {false, func(c Client, ctx context.Context) error { return c.Signal(ctx, 1) }},
		"shutdown":  {false, func(c Client, ctx context.Context) error { return c.Shutdown(ctx, 0) }},
		"wait":      {false, func(c Client, ctx context.Context) error { _, err := c.Wait(ctx); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			cuts := []func(net.Conn){
				func(conn net.Conn) { frame.NewReader(conn).Next() }, // the request was read: EOF
				func(conn net.Conn) { conn.Read(make([]byte, 1)) },   // most of it was not read: a reset
				func(conn net.Conn) {},                               // nothing of it was read: a reset, or a broken pipe
				func(conn net.Conn) {
					frame.NewReader(conn).Next()
					frame.WriteJSON(conn, frame.Response, Info{Version: 7, Oldest: Version})
				},
			}
			dialed := 0
			c := Client{Dial: func(context.Context) (net.Conn, error) {
				host, guest := processtest.SocketPair(t)
				cut := cuts[min(dialed, len(cuts)-1)]
				dialed++
				go func() { // ends with the cut
					cut(guest)
					guest.Close()
				}()
				return host, nil
			}}
			err := call.make(c, processtest.WithPatience(t))
			if call.repeated && (err != nil || dialed != len(cuts)) {
				t.Errorf("after %d connections of %d the error is %v", dialed, len(cuts), err)
			}
			if !call.repeated && (err == nil || dialed != 1) {
				t.Errorf("it is asked %d times, and the error is %v", dialed, err)
			}
		})
	}
}

// TestRepeatingEnds with the context, and returns the error of the last connection.
func TestRepeatingEnds(t *testing.T) {
	c := fakeAgent(t, func(_ Request, conn net.Conn) { conn.(*net.UnixConn).CloseWrite() })
	ctx, cancel := context.WithTimeout(t.Context(), 5*repeatAfter)
	defer cancel()
	_, err := c.Ping(ctx)
	if err == nil || !strings.Contains(err.Error(), "did not answer: EOF") || banger.CodeOf(err) != banger.CodeGuest {
		t.Errorf("got %v (%s)", err, banger.CodeOf(err))
	}
}

// TestClientContext: a call ends with its context, wherever it waits.
func TestClientContext(t *testing.T) {
	t.Run("for the channel", func(t *testing.T) {
		c := Client{Dial: func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := c.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("for the answer", func(t *testing.T) {
		asked, left := make(chan struct{}), make(chan struct{})
		c := fakeAgent(t, func(_ Request, conn net.Conn) {
			close(asked)
			io.Copy(io.Discard, conn) // until the client closes the stream
			close(left)
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-asked; cancel() }()
		if _, err := c.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		<-left
	})
	t.Run("for a guest that takes no request", func(t *testing.T) {
		host, agent := net.Pipe()
		defer agent.Close()
		c := Client{Dial: func(context.Context) (net.Conn, error) { return host, nil }}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		result := make(chan error, 1)
		go func() { _, err := c.Ping(ctx); result <- err }()
		select {
		case err := <-result:
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		case <-time.After(processtest.Patience):
			t.Fatal("the call outlives its context")
		}
	})
}

// TestClientExecStream: Exec returns the raw stream. The caller writes frames, and the agent notices its Close.
func TestClientExecStream(t *testing.T) {
	said := make(chan string, 2)
	c := fakeAgent(t, func(_ Request, conn net.Conn) {
		frame.Write(conn, frame.Started, nil)
		frames := frame.NewReader(conn)
		_, p, _ := frames.Next()
		said <- string(p)
		_, _, err := frames.Next()
		said <- err.Error()
	})
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := c.Exec(ctx, banger.Exec{Args: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	cancel() // it bounded the request, not the command
	if typ, _, err := frame.NewReader(conn).Next(); typ != frame.Started || err != nil {
		t.Errorf("got frame %d, %v", typ, err)
	}
	if err := frame.Write(conn, frame.Stdin, []byte("input")); err != nil {
		t.Error(err)
	}
	if s := <-said; s != "input" {
		t.Errorf("the agent read %q", s)
	}
	conn.Close()
	if s := <-said; s != io.EOF.Error() {
		t.Errorf("the agent's read ended with %q", s)
	}
}

// TestWhichAgentsAreSpokenWith lists ranges of versions that an agent may say.
func TestWhichAgentsAreSpokenWith(t *testing.T) {
	for name, c := range map[string]struct {
		newest, oldest int
		ok             bool
	}{
		"the same":                         {Version, Oldest, true},
		"from before the range":            {Version, 0, true},
		"newer, and speaks ours":           {Version + 5, Version, true},
		"older, and speaks our oldest":     {Oldest, 1, true},
		"newer only":                       {Version + 1, Version + 1, false},
		"older only":                       {Oldest - 1, 1, false},
		"newer, and from before the range": {Version + 1, 0, false},
		"a range that is upside down":      {Version, Version + 1, false},
		"nothing":                          {0, 0, false},
	} {
		err := Info{Version: c.newest, Oldest: c.oldest}.Check()
		if (err == nil) != c.ok || err != nil && banger.CodeOf(err) != banger.CodeVersion {
			t.Errorf("%s: %v", name, err)
		}
	}
}
