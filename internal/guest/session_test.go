package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode"

	"banger"
	"banger/internal/frame"
)

// stamp writes the position of the output that follows.
func stamp(w io.Writer, position uint64) error {
	_, err := w.Write(frame.AppendStamp(nil, position, time.Unix(5, 6)))
	return err
}

// TestAnAgentThatLiesAboutOutput checks that the output of a session from byte 7 on breaks off with an error at the
// first frame that cannot be true, and that the reader has all that came before it.
func TestAnAgentThatLiesAboutOutput(t *testing.T) {
	data := func(kind frame.Type, text string) func(io.Writer) {
		return func(w io.Writer) { frame.Write(w, kind, []byte(text)) }
	}
	raw := func(b ...byte) func(io.Writer) { return func(w io.Writer) { w.Write(b) } }
	at := func(position uint64) func(io.Writer) { return func(w io.Writer) { stamp(w, position) } }
	for name, tt := range map[string]struct {
		lie     func(w io.Writer)
		message string
	}{
		"a position that goes back":  {at(9), "from byte 9 on at byte 10"},
		"a position from the start":  {at(0), "from byte 0 on at byte 10"},
		"a position that overflows":  {at(1<<64 - 1), "at byte 10"},
		"two stamps":                 {func(w io.Writer) { stamp(w, 10); stamp(w, 10) }, "from byte 10 on at byte 10"},
		"a short stamp":              {data(frame.Stamp, "12345678"), "at byte 10"},
		"a long stamp":               {data(frame.Stamp, strings.Repeat("x", 100)), "at byte 10"},
		"data without a stamp":       {data(frame.Stderr, "x"), "without its position"},
		"a stamp without data":       {func(w io.Writer) { stamp(w, 10); data(frame.Stdout, "")(w) }, "without its position"},
		"another beginning":          {data(frame.Started, ""), "frame 7"},
		"input":                      {data(frame.Stdin, "x"), "frame 2"},
		"a screen":                   {data(frame.Screen, "x"), "frame 13"},
		"a frame of no type":         {data(0, "x"), "frame 0"},
		"a frame of an unknown type": {data(200, "x"), "frame 200"},
		"a frame of four gigabytes":  {raw(8, 0, 0, 0, 255, 255, 255, 255), "over the limit"},
		"a header with other bytes":  {raw(8, 1, 2, 3, 0, 0, 0, 1, 'x'), "starts with"},
		"an end inside a frame":      {raw(8, 0, 0, 0, 0, 0, 0, 9, 'x'), "did not send all"},
		"an end without a word":      {raw(), "did not send all"},
		"an error that is none":      {data(frame.Error, "{"), "broken error"},
	} {
		t.Run(name, func(t *testing.T) {
			var sent, got bytes.Buffer
			frame.Write(&sent, frame.Started, nil)
			stamp(&sent, 7)
			frame.Write(&sent, frame.Stdout, []byte("out"))
			before := sent.Len() - frame.Header // without frame.Started
			tt.lie(&sent)
			err := CopyOutput(&got, &sent, 7)
			if err == nil || banger.CodeOf(err) != banger.CodeGuest || !strings.Contains(err.Error(), tt.message) {
				t.Errorf("the error is %v, %s", err, banger.CodeOf(err))
			}
			if got.Len() < before || !bytes.Contains(got.Bytes(), []byte("out")) {
				t.Errorf("the reader has %q", got.Bytes())
			}
		})
	}
}

// endless is an agent that sends the same frames for ever.
type endless struct{ frames []byte }

func (e endless) Read(p []byte) (int, error) { return copy(p, e.frames), nil }

// gone is a reader of output that goes away after some frames.
type gone struct{ left int }

func (g *gone) Write(p []byte) (int, error) {
	if g.left--; g.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

// TestAnEndlessAgent has agents that never end: their frames are passed on or are an error, and take no memory.
func TestAnEndlessAgent(t *testing.T) {
	var started, stamps bytes.Buffer
	frame.Write(&started, frame.Started, nil)
	stamp(&stamps, 1)
	for name, tt := range map[string]struct {
		frames []byte
		ends   bool // with an error of the agent
	}{"stamps": {stamps.Bytes(), true}, "beginnings": {started.Bytes(), true}} {
		err := CopyOutput(&gone{1000}, &exactly{r: endless{tt.frames}, size: len(tt.frames)}, 0)
		if (err != nil) != tt.ends {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// exactly reads whole rounds of size bytes, so that an endless stream stays in step.
type exactly struct {
	r    io.Reader
	size int
	buf  []byte
}

func (e *exactly) Read(p []byte) (int, error) {
	if len(e.buf) == 0 {
		e.buf = make([]byte, e.size)
		io.ReadFull(e.r, e.buf)
	}
	n := copy(p, e.buf)
	e.buf = e.buf[n:]
	return n, nil
}

// printable fails the test unless all text below v is printable.
func printable(t *testing.T, where string, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		for _, r := range v.String() {
			if !unicode.IsPrint(r) {
				t.Errorf("%s is %.100q", where, v.String())
				return
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			printable(t, where, v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				printable(t, where+"."+v.Type().Field(i).Name, v.Field(i))
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			printable(t, where, v.Elem())
		}
	}
}

const evil = "\x1b]0;owned\x07\r\n\u202e\U000e0041"

// evilSession is what an agent may say, and takes nearly a whole frame.
func evilSession() map[string]any {
	long := strings.Repeat(evil, 3000)
	return map[string]any{
		"name": long, "state": long, "reason": long, "pid": -1, "restarts": -1, "peak_memory": -1,
		"first": uint64(1<<64 - 1), "end": 1,
		"restart": map[string]any{"name": long, "max": -1},
		"exit":    map[string]any{"code": -1 << 40, "signal": 1 << 40},
		"command": map[string]any{"args": []string{evil, evil}, "env": []string{long}, "dir": long, "user": long},
	}
}

// TestAnAgentThatLiesAboutSessions checks that what is said of sessions is bounded and printable in each answer.
func TestAnAgentThatLiesAboutSessions(t *testing.T) {
	c := Sessions{answering(t, func(agent net.Conn, _ *frame.Reader) {
		frame.WriteJSON(agent, frame.Response, evilSession())
	})}
	one := func(s banger.Session, err error) ([]banger.Session, error) { return []banger.Session{s}, err }
	for name, ask := range map[string]func() ([]banger.Session, error){
		"get":  func() ([]banger.Session, error) { return one(c.Get(t.Context(), "x")) },
		"wait": func() ([]banger.Session, error) { return one(c.Wait(t.Context(), "x")) },
		"stop": func() ([]banger.Session, error) { return one(c.Stop(t.Context(), "x", 0)) },
		"list": func() ([]banger.Session, error) {
			return Sessions{answering(t, func(agent net.Conn, _ *frame.Reader) {
				frame.WriteJSON(agent, frame.Response, []any{evilSession()})
			})}.List(t.Context())
		},
		"events": func() (list []banger.Session, err error) {
			c := Sessions{answering(t, func(agent net.Conn, _ *frame.Reader) {
				frame.WriteJSON(agent, frame.Response, map[string]any{"cursor": evil, "removed": evil,
					"error": map[string]any{"code": evil}, "sessions": []any{evilSession()}})
				frame.Write(agent, frame.Exit, nil)
			})}
			return list, c.Events(t.Context(), "", true, func(c banger.SessionChange) error {
				printable(t, "a change", reflect.ValueOf(c))
				list = c.Sessions
				return nil
			})
		},
	} {
		list, err := ask()
		if err != nil || len(list) != 1 {
			t.Errorf("%s: %d sessions, %v", name, len(list), err)
			continue
		}
		s := list[0]
		printable(t, name, reflect.ValueOf(s))
		if said, _ := json.Marshal(s); len(said) > 16<<10 {
			t.Errorf("%s: the session has %d bytes", name, len(said))
		}
		status := s.Exit.Status()
		if s.First > s.End || s.PID < 0 || s.Restarts < 0 || s.PeakMemory < 0 || status > 255 || status < 0 {
			t.Errorf("%s: the session is at %d of %d, PID %d, %d restarts, %d bytes, exit %+v", name, s.First, s.End, s.PID,
				s.Restarts, s.PeakMemory, s.Exit)
		}
	}
}

// TestAnAgentWithTooManySessions has the longest list that fits a frame. It takes no memory for what nobody gets.
func TestAnAgentWithTooManySessions(t *testing.T) {
	list := "[" + strings.Repeat("{},", (frame.Max-10)/3) + "{}]"
	for name, answer := range map[string]func(io.Writer){
		"many":           func(w io.Writer) { frame.Write(w, frame.Response, []byte(list)) },
		"nothing":        func(w io.Writer) { frame.Write(w, frame.Response, []byte("7")) },
		"half a list":    func(w io.Writer) { frame.Write(w, frame.Response, []byte("[{},")) },
		"other elements": func(w io.Writer) { frame.Write(w, frame.Response, []byte("[1,2]")) },
		"another frame":  func(w io.Writer) { frame.Write(w, frame.Exit, []byte("[]")) },
	} {
		c := answering(t, func(agent net.Conn, _ *frame.Reader) { answer(agent) })
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := Sessions{c}.List(context.Background())
		runtime.ReadMemStats(&after)
		if banger.CodeOf(err) != banger.CodeGuest || len(got) != 0 {
			t.Errorf("%s: %d sessions, %v", name, len(got), err)
		}
		if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 16 {
			t.Errorf("%s: it took %d MiB", name, took)
		}
	}
}

// TestAnAgentThatLiesAboutChanges sends what is no change.
func TestAnAgentThatLiesAboutChanges(t *testing.T) {
	for name, answer := range map[string]func(io.Writer){
		"too many sessions": func(w io.Writer) {
			frame.Write(w, frame.Response, []byte(`{"sessions":[`+strings.Repeat("{},", maxSessions)+"{}]}"))
		},
		"a number":      func(w io.Writer) { frame.Write(w, frame.Response, []byte("7")) },
		"another frame": func(w io.Writer) { frame.Write(w, frame.Stdout, []byte("{}")) },
		"an early end":  func(w io.Writer) { frame.Write(w, frame.Exit, nil) },
		"nothing":       func(io.Writer) {},
	} {
		c := Sessions{answering(t, func(agent net.Conn, _ *frame.Reader) { answer(agent) })}
		err := c.Events(t.Context(), "", false, func(c banger.SessionChange) error {
			t.Errorf("%s: %+v is told", name, c)
			return nil
		})
		if banger.CodeOf(err) != banger.CodeGuest {
			t.Errorf("%s: %v", name, err)
		}
	}
}
