package acp

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/acp"
	"banger/internal/cli/command"
	"banger/internal/frame"
	"banger/internal/host"
	"banger/internal/testing/apitest"
)

// TestPiecesBecomeLines checks messages that come in pieces, and one without an end.
func TestPiecesBecomeLines(t *testing.T) {
	var got []string
	l := &splitter{line: func(line []byte) error {
		got = append(got, string(line))
		return nil
	}}
	for _, piece := range []string{"{\"a\"", ":1}\n{}", "\n", "\nrest"} {
		if err := l.write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"{\"a\":1}\n", "{}\n", "\n"}; !reflect.DeepEqual(got, want) {
		t.Errorf("the lines are %q", got)
	}
	if err := l.write(make([]byte, acp.MaxMessage)); err != errTooLong {
		t.Errorf("a message without an end: %v", err)
	}
}

// guest is a daemon whose only session echoes what it gets on connections that break when the test says so.
type guest struct {
	mu        sync.Mutex
	conns     []net.Conn
	positions []string // of the attached, as they were asked for
	got       bytes.Buffer
	arrived   chan string // each whole line
}

func (a *guest) attach(w http.ResponseWriter, r *http.Request) {
	conn := apitest.Upgrade(w, r)
	a.mu.Lock()
	a.conns = append(a.conns, conn)
	a.positions = append(a.positions, r.URL.Query().Get("position"))
	a.mu.Unlock()
	go func() { // ends with conn
		for frames := frame.NewReader(conn); ; {
			kind, p, err := frames.Next()
			if err != nil {
				return
			}
			if kind != frame.Stdin {
				continue
			}
			a.mu.Lock()
			a.got.Write(p)
			for {
				line, err := a.got.ReadString('\n')
				if err != nil {
					a.got.WriteString(line)
					break
				}
				a.arrived <- line
			}
			a.mu.Unlock()
		}
	}()
}

// say writes output at a position to the latest connection.
func (a *guest) say(t *testing.T, position uint64, text string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	conn := a.conns[len(a.conns)-1]
	out := frame.AppendStamp(nil, position, time.Now())
	if _, err := conn.Write(out); err != nil {
		t.Error(err)
	}
	if err := frame.Write(conn, frame.Stdout, []byte(text)); err != nil {
		t.Error(err)
	}
}

func (a *guest) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conns[len(a.conns)-1].Close()
}

func (a *guest) last(t *testing.T) string {
	t.Helper()
	select {
	case line := <-a.arrived:
		return line
	case <-time.After(10 * time.Second):
		t.Fatal("nothing arrives")
	}
	return ""
}

// newStream returns a stream to the session of an agent, and what it has said so far.
func newStream(t *testing.T) (*stream, *guest, chan string) {
	t.Helper()
	a := &guest{arrived: make(chan string, 16)}
	socket := apitest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/attach") {
			a.attach(w, r)
			return
		}
		json.NewEncoder(w).Encode(banger.Session{})
	})
	app := &command.App{Stderr: io.Discard, Stdout: io.Discard, Stdin: os.Stdin}
	app.Reach(host.Paths{State: t.TempDir(), Run: filepath.Dir(socket)})
	s := &stream{app: app, vm: "vm", session: "acp", bridge: acp.New("/p", "/workspace"), next: new(uint64),
		back: make(chan struct{}, 1)}
	said := make(chan string, 16)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // ends with ctx
		defer close(done)
		s.receive(ctx, io.Discard, func(line []byte) error {
			said <- string(line)
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		s.mu.Lock()
		if s.conn != nil {
			s.conn.Close()
		}
		s.mu.Unlock()
		<-done
	})
	return s, a, said
}

func next(t *testing.T, said chan string) string {
	t.Helper()
	select {
	case line := <-said:
		return line
	case <-time.After(10 * time.Second):
		t.Fatal("the agent's line does not come")
	}
	return ""
}

// TestABrokenStreamGoesOn checks that a message which is cut arrives whole, and that output goes on where it was.
func TestABrokenStreamGoesOn(t *testing.T) {
	s, a, said := newStream(t)
	ask := `{"id":1,"method":"session/prompt","params":{}}` + "\n"
	s.bridge.FromEditor([]byte(ask))
	if err := s.send(t.Context(), []byte(ask)); err != nil {
		t.Fatal(err)
	}
	if got := a.last(t); got != ask {
		t.Errorf("the agent gets %q", got)
	}
	a.say(t, 0, "{\"method\":\"x\"}\n")
	if got := next(t, said); got != "{\"method\":\"x\"}\n" {
		t.Errorf("the editor gets %q", got)
	}
	a.cut() // the editor waits for an answer, so the stream comes back by itself
	deadline := time.Now().Add(10 * time.Second)
	for {
		a.mu.Lock()
		n := len(a.conns)
		a.mu.Unlock()
		if n == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the stream does not come back")
		}
		time.Sleep(5 * time.Millisecond)
	}
	a.say(t, 15, "{\"id\":1,\"result\":{}}\n")
	if got := next(t, said); got != "{\"id\":1,\"result\":{}}\n" {
		t.Errorf("the editor gets %q", got)
	}
	if want := []string{"0", "15"}; !reflect.DeepEqual(a.positions, want) {
		t.Errorf("it attaches at %q", a.positions)
	}
}

// TestAVMThatSleepsIsNotWoken checks that a stream which breaks while nothing is asked comes back only with the next
// message.
func TestAVMThatSleepsIsNotWoken(t *testing.T) {
	s, a, _ := newStream(t)
	note := `{"method":"session/cancel","params":{}}` + "\n"
	if err := s.send(t.Context(), []byte(note)); err != nil {
		t.Fatal(err)
	}
	a.last(t)
	a.cut()
	for { // until the stream has seen it
		s.mu.Lock()
		gone := s.conn == nil
		s.mu.Unlock()
		if gone {
			break
		}
		time.Sleep(time.Millisecond)
	}
	a.mu.Lock()
	n := len(a.conns)
	a.mu.Unlock()
	if n != 1 {
		t.Errorf("it attaches %d times", n)
	}
	if err := s.send(t.Context(), []byte(note)); err != nil {
		t.Fatal(err)
	}
	if got := a.last(t); got != note {
		t.Errorf("the agent gets %q", got)
	}
}
