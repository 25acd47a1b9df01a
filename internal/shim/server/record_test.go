package server

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/output"
	"banger/internal/shim"
)

// attach starts the main command with a client.
func (v *vmShim) attach(script string) net.Conn {
	v.t.Helper()
	agent := guest.Client{Dial: func(ctx context.Context) (net.Conn, error) { return v.OfferMain(ctx, guest.AgentPort) }}
	conn, err := agent.Exec(v.ctx(), banger.Exec{Args: []string{"/bin/sh", "-c", script}, Main: true})
	check(v.t, err)
	v.t.Cleanup(func() { conn.Close() })
	return conn
}

// both returns what the frames of an output have, the streams together and apart.
func both(t *testing.T, r io.Reader) (all, stderr string) {
	t.Helper()
	frames := frame.NewReader(r)
	for {
		typ, p, err := frames.Next()
		if err == io.EOF {
			return all, stderr
		}
		check(t, err)
		all += string(p)
		if typ == frame.Stderr {
			stderr += string(p)
		}
	}
}

// TestTheMainCommandsOutputIsRecordedAndSeen has a client that is given away, a follower, and a reader of the file.
func TestTheMainCommandsOutputIsRecordedAndSeen(t *testing.T) {
	v := startShim(t, nil)
	_, err := v.agent().Configure(v.ctx(), guest.Config{})
	check(t, err)
	followed := make(chan []byte, 1)
	go func() {
		var b bytes.Buffer
		v.FollowOutput(v.ctx(), banger.LogView{Tail: -1}, &b)
		followed <- b.Bytes()
	}()
	conn := v.attach("seq 100000; echo no >&2; printf end")
	near, far := unixPair(t)
	given, err := conn.(*shim.Stream).Give(far)
	check(t, err)
	far.Close()
	if !given {
		t.Fatal("the stream is not given away")
	}
	var typ frame.Type
	var all, stderr strings.Builder
	for frames := frame.NewReader(near); typ != frame.Exit; {
		var p []byte
		first := typ == 0
		typ, p, err = frames.Next()
		check(t, err)
		switch {
		case first != (typ == frame.Started):
			t.Fatalf("frame %d comes first, or again", typ)
		case typ == frame.Stderr:
			stderr.Write(p)
			all.Write(p)
		case typ == frame.Stdout:
			all.Write(p)
		}
	}
	if stderr.String() != "no\n" || all.Len() != 588895+len("no\nend") {
		t.Errorf("the client gets %d bytes, and %q", all.Len(), stderr.String())
	}
	check(t, v.Kill(v.ctx()))
	var file bytes.Buffer
	check(t, output.Read(shim.OutputPath(v.Dir), banger.LogView{Tail: -1}, &file))
	for who, frames := range map[string][]byte{"the follower": <-followed, "the file": file.Bytes()} {
		if got, errs := both(t, bytes.NewReader(frames)); got != all.String() || errs != "no\n" {
			t.Errorf("%s has %d bytes, and %q", who, len(got), errs)
		}
	}
	check(t, <-v.ended)
	v.ended <- nil
}

// TestTheMainCommandOutlivesItsClient, and its output is still recorded. Another client cannot take the place.
func TestTheMainCommandOutlivesItsClient(t *testing.T) {
	v := startShim(t, nil)
	_, err := v.agent().Configure(v.ctx(), guest.Config{})
	check(t, err)
	conn := v.attach("echo one; read line; yes | head -c 3000000; echo two; sleep 1000")
	frames := frame.NewReader(conn)
	for _, want := range []frame.Type{frame.Started, frame.Stdout} {
		if typ, p, err := frames.Next(); err != nil || typ != want {
			t.Fatalf("frame %d comes, %q, %v", typ, p, err)
		}
	}
	second := frame.NewReader(v.attach("echo no"))
	if typ, p, err := second.Next(); err != nil || typ != frame.Error {
		t.Errorf("a second main command is answered %d %q, %v", typ, p, err)
	}
	check(t, conn.Close())
	ctx, cancel := context.WithCancel(v.ctx())
	r, w := io.Pipe()
	go func() { // ends with ctx
		v.FollowOutput(ctx, banger.LogView{Tail: -1}, w)
		w.Close()
	}()
	var got strings.Builder
	for followed := frame.NewReader(r); !strings.HasSuffix(got.String(), "two\n"); {
		_, p, err := followed.Next()
		check(t, err)
		got.Write(p)
	}
	cancel()
	if want := "one\n" + strings.Repeat("y\n", 1500000) + "two\n"; got.String() != want {
		t.Errorf("%d bytes are recorded of %d, or others", got.Len(), len(want))
	}
}

// TestAFrameOfTheAgentStaysWhole: bytes of the agent that come in pieces, and output, do not mix.
func TestAFrameOfTheAgentStaysWhole(t *testing.T) {
	log, err := output.Open(t.TempDir() + "/output.log")
	check(t, err)
	defer log.Close()
	r := &recorder{log: log}
	a := r.attach()
	near, far := unixPair(t)
	client := a.to(far)
	var sent bytes.Buffer
	check(t, frame.Write(&sent, frame.Started, nil))
	check(t, frame.Write(&sent, frame.Exit, []byte(`{"code":3}`)))
	for i, b := range sent.Bytes() {
		_, err := client.Write([]byte{b})
		check(t, err)
		if i >= frame.Header-1 {
			r.take(guest.Record{Stream: frame.Stdout, Data: []byte("x")})
		}
	}
	check(t, far.Close())
	silent := r.attach() // it delays nobody, though its agent never says that the command runs
	defer silent.leave()
	r.take(guest.Record{Stream: frame.Stdout, Data: []byte("the client is gone")})
	if _, err := client.Write([]byte("\x0a\x00\x00\x00\xff\xff\xff\xff")); err == nil {
		t.Error("a frame of 4 GiB is taken")
	}
	frames, output, exits := frame.NewReader(near), "", 0
	for {
		typ, p, err := frames.Next()
		if err == io.EOF {
			break
		}
		check(t, err)
		switch typ {
		case frame.Stdout:
			output += string(p)
		case frame.Exit:
			exits++
			if string(p) != `{"code":3}` {
				t.Errorf("the exit is %q", p)
			}
		}
	}
	if exits != 1 || output != strings.Repeat("x", sent.Len()-frame.Header+1) {
		t.Errorf("%d exits come, and %q", exits, output)
	}
	if r.attach() == nil {
		t.Error("the client that is gone has the place")
	}
}

// TestALateClientHasTheAnswer: the command answers a client before the shim has passed on that the command runs. A
// client that misses more than what may wait gets the end of it.
func TestALateClientHasTheAnswer(t *testing.T) {
	flood := strings.Repeat("y", maxPending)
	for name, c := range map[string]struct{ before, want []string }{
		"a short answer": {[]string{"one", "two"}, []string{"one", "two", "three"}},
		"a flood":        {[]string{"one", flood}, []string{flood, "three"}},
	} {
		t.Run(name, func(t *testing.T) {
			log, err := output.Open(t.TempDir() + "/output.log")
			check(t, err)
			defer log.Close()
			r := &recorder{log: log}
			say := func(text string) {
				r.take(guest.Record{Position: r.position, Stream: frame.Stdout, Data: []byte(text)})
			}
			say("before the client")
			a := r.attach()
			defer a.leave()
			near, far := unixPair(t)
			client := a.to(far)
			for _, text := range c.before {
				say(text)
			}
			check(t, frame.Write(client, frame.Started, nil))
			say("three")
			check(t, far.Close())
			frames, got := frame.NewReader(near), []string(nil)
			for typ, p, err := frames.Next(); err != io.EOF; typ, p, err = frames.Next() {
				check(t, err)
				if (typ == frame.Started) != (got == nil) {
					t.Fatalf("a frame %v comes behind %d others", typ, len(got))
				}
				got = append(got, string(p))
			}
			if !slices.Equal(got[1:], c.want) {
				t.Errorf("the client gets %d records: %.100q", len(got)-1, got[1:])
			}
		})
	}
}
