package session

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/agent/command"
	"banger/internal/frame"
	"banger/internal/testing/processtest"
)

// reaper waits for the commands of all tests.
var reaper = command.NewReaper(nil)

func TestMain(m *testing.M) {
	go reaper.Run() // ends with the process
	os.Exit(m.Run())
}

// manager returns a manager whose sessions are in dir, and end with the test.
func manager(t *testing.T, dir string) *Manager {
	t.Helper()
	m := New(func(e *banger.Exec, how command.Options) (*command.Process, error) { return reaper.Start(*e, how) })
	_, err := m.Open(dir, 0)
	must(t, err)
	t.Cleanup(func() { m.Close(0) })
	return m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shell returns the specification of a session of a shell.
func shell(name, script string) banger.SessionSpec {
	return banger.SessionSpec{Name: name, Command: banger.Exec{Args: []string{"/bin/sh", "-c", script}, Stdin: true}}
}

// ended waits for the end of a session.
func ended(t *testing.T, m *Manager, name string) banger.Session {
	t.Helper()
	over, describe, err := m.Wait(name)
	must(t, err)
	select {
	case <-over:
	case <-processtest.WithPatience(t).Done():
		t.Fatalf("the session %s does not end: %+v", name, describe())
	}
	return describe()
}

// reader is a client of a session.
type reader struct {
	t      *testing.T
	conn   net.Conn
	frames *frame.Reader
	at     uint64 // behind the last byte of output
	missed uint64
	got    map[frame.Type]string
	end    *banger.Session
}

// attach attaches a client to a session.
func attach(t *testing.T, m *Manager, name string, v banger.SessionView) *reader {
	t.Helper()
	near, far := net.Pipe()
	a, err := m.Attach(far, name, v)
	must(t, err)
	done := make(chan struct{})
	go func() { // ends with the client
		a.Serve(frame.NewReader(far))
		far.Close()
		close(done)
	}()
	t.Cleanup(func() { near.Close(); <-done })
	c := &reader{t: t, conn: near, frames: frame.NewReader(near), got: map[frame.Type]string{}}
	if v.Position != nil {
		c.at = *v.Position
	}
	if kind, _, err := c.frames.Next(); err != nil || kind != frame.Started {
		t.Fatalf("the first frame is %d, %v", kind, err)
	}
	return c
}

// until reads until what came on a stream has text, or, with "", until the session's end.
func (c *reader) until(stream frame.Type, text string) *reader {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(time.Minute))
	for text == "" || !strings.Contains(c.got[stream], text) {
		kind, payload, err := c.frames.Next()
		if err != nil {
			c.t.Fatalf("%v; so far %q", err, c.got)
		}
		switch kind {
		case frame.Stamp:
			position, _, ok := frame.ParseStamp(payload)
			if !ok || position < c.at {
				c.t.Fatalf("the stamp %x comes at %d", payload, c.at)
			}
			c.missed += position - c.at
			c.at = position
		case frame.Stdout, frame.Stderr:
			c.at += uint64(len(payload))
			c.got[kind] += string(payload)
		case frame.Screen:
			c.got[kind] += string(payload)
		case frame.Exit:
			c.end = new(banger.Session)
			must(c.t, json.Unmarshal(payload, c.end))
			if text != "" {
				c.t.Fatalf("the session has ended: %+v; so far %q", c.end, c.got)
			}
			return c
		default:
			c.t.Fatalf("frame %d", kind)
		}
	}
	return c
}

func (c *reader) send(kind frame.Type, payload string) {
	c.t.Helper()
	must(c.t, frame.Write(c.conn, kind, []byte(payload)))
}

var start uint64 // the position of the first byte

func TestASessionOutlivesItsClients(t *testing.T) {
	m := manager(t, t.TempDir())
	s, err := m.Start(shell("", "echo out; echo err >&2; while read line; do echo got $line; done; exit 3"))
	must(t, err)
	if s.Name != "sh" || s.State != banger.SessionRunning || s.PID == 0 || s.Exit != nil {
		t.Errorf("it has begun as %+v", s)
	}
	first := attach(t, m, "sh", banger.SessionView{Position: &start})
	first.until(frame.Stdout, "out\n").until(frame.Stderr, "err\n")
	first.send(frame.Stdin, "one\n")
	first.until(frame.Stdout, "got one\n")
	first.conn.Close()

	second := attach(t, m, "sh", banger.SessionView{Position: &first.at})
	third := attach(t, m, "sh", banger.SessionView{Position: &start, ReadOnly: true})
	third.send(frame.Stdin, "nothing\n")
	second.send(frame.Stdin, "two\n")
	second.send(frame.StdinEOF, "")
	second.until(0, "")
	third.until(0, "")
	if second.got[frame.Stdout] != "got two\n" || second.missed != 0 {
		t.Errorf("the second client got %q", second.got)
	}
	if third.got[frame.Stdout] != "out\ngot one\ngot two\n" || third.got[frame.Stderr] != "err\n" {
		t.Errorf("the third client got %q", third.got)
	}
	if e := second.end; e.State != banger.SessionEnded || e.Exit == nil || e.Exit.Code != 3 || e.End != 24 {
		t.Errorf("it has ended as %+v", e)
	}
	late := attach(t, m, "sh", banger.SessionView{Log: &banger.LogView{Tail: -1}}).until(0, "")
	if late.got[frame.Stdout] != third.got[frame.Stdout] {
		t.Errorf("after the end a client gets %q", late.got)
	}
	must(t, m.Remove("sh", false))
	if _, err := m.Get("sh"); banger.CodeOf(err) != banger.CodeNotFound {
		t.Errorf("after rm: %v", err)
	}
}

func TestPoliciesStartACommandAgain(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		policy       banger.RestartPolicy
		restarts     int
		exit         banger.Exit
		reason       string
	}{
		{"no", "exit 1", banger.RestartPolicy{}, 0, banger.Exit{Code: 1}, ""},
		{"after-success", "exit 0", banger.RestartPolicy{Name: banger.RestartOnFailure}, 0, banger.Exit{}, ""},
		{"after-failures", "test -e $F-2 && exit; test -e $F-1 && { touch $F-2; exit 1; }; touch $F-1; kill -9 $$",
			banger.RestartPolicy{Name: banger.RestartOnFailure}, 2, banger.Exit{}, ""},
		{"as-often-as-allowed", "exit 4", banger.RestartPolicy{Name: banger.RestartOnFailure, Max: 2}, 2,
			banger.Exit{Code: 4}, "it was started again 2 times, as often as its policy allows"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := manager(t, t.TempDir())
			spec := shell(tt.name, "echo run; "+tt.script)
			spec.Restart = tt.policy
			spec.Command.Env = []string{"F=" + filepath.Join(t.TempDir(), "run")}
			_, err := m.Start(spec)
			must(t, err)
			s := ended(t, m, tt.name)
			if s.Restarts != tt.restarts || *s.Exit != tt.exit || s.Reason != tt.reason || s.Ended.Before(s.Started) {
				t.Errorf("it has ended as %+v, exit %+v", s, s.Exit)
			}
			got := attach(t, m, tt.name, banger.SessionView{Position: &start}).until(0, "").got[frame.Stdout]
			if got != strings.Repeat("run\n", tt.restarts+1) {
				t.Errorf("its output is %q", got)
			}
			if s.Command.Env[0] != "F="+banger.HiddenValue {
				t.Errorf("its environment shows as %q", s.Command.Env)
			}
		})
	}
}

func TestStopEndsASessionForGood(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		tty          bool
		grace        time.Duration
		exit         banger.Exit
	}{
		{"by-term", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done", false, time.Minute,
			banger.Exit{Code: 5}},
		{"by-hup", "trap '' TERM; echo ready; while :; do sleep 0.05; done", true, time.Minute, banger.Exit{Signal: 1}},
		{"by-kill", "trap '' TERM; echo ready; while :; do sleep 0.05; done", false, time.Millisecond,
			banger.Exit{Signal: 9}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := manager(t, t.TempDir())
			spec := shell(tt.name, tt.script)
			spec.Command.Args = append([]string{"env", "--default-signal=HUP"}, spec.Command.Args...) // nohup ignores it
			spec.Command.TTY = tt.tty
			spec.Restart.Name = banger.RestartAlways
			_, err := m.Start(spec)
			must(t, err)
			attach(t, m, tt.name, banger.SessionView{Position: &start}).until(frame.Stdout, "ready")
			if err := m.Remove(tt.name, false); banger.CodeOf(err) != banger.CodeConflict {
				t.Errorf("rm of what runs: %v", err)
			}
			must(t, m.Stop(tt.name, tt.grace))
			if s, err := m.Get(tt.name); err != nil || s.State != banger.SessionEnded || *s.Exit != tt.exit || s.Restarts != 0 {
				t.Errorf("it has ended as %+v, %v", s, err)
			}
			must(t, m.Stop(tt.name, 0)) // again
		})
	}
}

func TestALaterBootKnowsTheSessions(t *testing.T) {
	dir := t.TempDir()
	m := manager(t, dir)
	always := banger.RestartAlways
	for name, policy := range map[string]string{"once": "", "ever": always, "stopped": always} {
		spec := shell(name, "echo $$ says hello; exec sleep 1000")
		spec.Restart.Name = policy
		_, err := m.Start(spec)
		must(t, err)
		attach(t, m, name, banger.SessionView{Position: &start}).until(frame.Stdout, "hello\n")
	}
	_, err := m.Start(shell("done", "echo end; exit 7"))
	must(t, err)
	ended(t, m, "done")
	must(t, m.Stop("stopped", time.Minute))
	before, err := m.Get("ever")
	must(t, err)
	m.Close(time.Minute) // a stop of the VM

	m = manager(t, dir)
	for name, want := range map[string]struct {
		state, reason string
		exit          *banger.Exit
	}{
		"once":    {banger.SessionEnded, "the VM was stopped", &banger.Exit{Signal: 15}},
		"ever":    {banger.SessionEnded, "the VM was stopped", &banger.Exit{Signal: 15}},
		"stopped": {banger.SessionEnded, "", &banger.Exit{Signal: 15}},
		"done":    {banger.SessionEnded, "", &banger.Exit{Code: 7}},
	} {
		s, err := m.Get(name)
		must(t, err)
		if s.State != want.state || s.Reason != want.reason || s.Exit == nil || *s.Exit != *want.exit || s.First != 0 ||
			s.End == 0 {
			t.Errorf("%s is %+v, exit %+v", name, s, s.Exit)
		}
	}
	m.Adopt()
	c := attach(t, m, "ever", banger.SessionView{Position: &before.End}).until(frame.Stdout, "says hello\n")
	if s, _ := m.Get("ever"); s.State != banger.SessionRunning || s.Reason != "" || s.Restarts != before.Restarts ||
		c.missed != 0 {
		t.Errorf("it runs again as %+v", s)
	}
	if s, _ := m.Get("stopped"); s.State != banger.SessionEnded {
		t.Errorf("what was stopped is %s", s.State)
	}

	// A power cut ends a guest without a word.
	m.mu.Lock()
	crashed := t.TempDir()
	must(t, os.CopyFS(crashed, os.DirFS(dir)))
	m.mu.Unlock()
	m = manager(t, crashed)
	if s, err := m.Get("ever"); err != nil || s.Exit != nil || !strings.Contains(s.Reason, "not known") || s.PID != 0 {
		t.Errorf("after a power cut it is %+v, %v", s, err)
	}
}

func TestWhatCannotStartLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	m := manager(t, dir)
	_, err := m.Start(shell("taken", "sleep 1000"))
	must(t, err)
	for name, tt := range map[string]struct {
		spec banger.SessionSpec
		code banger.Code
	}{
		"an absent command": {banger.SessionSpec{Command: banger.Exec{Args: []string{"/no/such"}}}, banger.CodeCommandAbsent},
		"a taken name":      {shell("taken", "true"), banger.CodeConflict},
		"a path as a name":  {shell("../x", "true"), banger.CodeInvalid},
		"no command":        {banger.SessionSpec{Name: "b"}, banger.CodeInvalid},
		"the main command":  {banger.SessionSpec{Command: banger.Exec{Args: []string{"x"}, Main: true}}, banger.CodeInvalid},
		"an unknown policy": {banger.SessionSpec{Command: banger.Exec{Args: []string{"true"}},
			Restart: banger.RestartPolicy{Name: "x"}}, banger.CodeInvalid},
		"a directory of nowhere": {banger.SessionSpec{Command: banger.Exec{Args: []string{"true"}, Dir: "/no/such"}},
			banger.CodeCannotRun},
	} {
		if _, err := m.Start(tt.spec); banger.CodeOf(err) != tt.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || len(m.List()) != 1 {
		t.Errorf("there are %v, %v, and the sessions %+v", entries, err, m.List())
	}
}

func TestNamesComeFromCommands(t *testing.T) {
	m := manager(t, t.TempDir())
	for _, tt := range []struct{ program, name string }{{"/bin/true", "true"}, {"/bin/true", "true-2"}} {
		s, err := m.Start(banger.SessionSpec{Command: banger.Exec{Args: []string{tt.program}}})
		if err != nil || s.Name != tt.name {
			t.Errorf("%s is called %s, %v", tt.program, s.Name, err)
		}
	}
	for program, name := range map[string]string{"/x/My_Tool.sh": "my-tool-sh", "--": "session", "...": "session",
		strings.Repeat("x", 200): strings.Repeat("x", 50)} {
		if got := m.freeName(program); got != name {
			t.Errorf("%q is called %q", program, got)
		}
	}
}

// TestInputReachesACommandOnce sends more than a pipe holds, in two parts, and ends the input with the second.
func TestInputReachesACommandOnce(t *testing.T) {
	m := manager(t, t.TempDir())
	_, err := m.Start(shell("wc", "wc -c"))
	must(t, err)
	send := func(data []byte, end bool) error {
		near, far := net.Pipe()
		go func() { // ends when all is sent
			for chunk := range slices.Chunk(data, 50_000) {
				frame.Write(near, frame.Stdin, chunk)
			}
			frame.Write(near, frame.StdinEOF, nil)
		}()
		defer near.Close()
		return m.Send(far, frame.NewReader(far), "wc", end)
	}
	must(t, send(make([]byte, 700_000), false))
	must(t, send(make([]byte, 300_000), true))
	c := attach(t, m, "wc", banger.SessionView{Position: &start}).until(0, "")
	if strings.TrimSpace(c.got[frame.Stdout]) != "1000000" {
		t.Errorf("the command has got %q bytes", c.got)
	}
	if err := send(nil, false); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("after the end: %v", err)
	}
}

func TestSignalsReachTheCommand(t *testing.T) {
	m := manager(t, t.TempDir())
	_, err := m.Start(shell("sig",
		"trap 'echo usr1' USR1; trap 'exit 9' USR2; echo ready; while :; do sleep 0.05; done"))
	must(t, err)
	c := attach(t, m, "sig", banger.SessionView{Position: &start}).until(frame.Stdout, "ready")
	must(t, m.Signal("sig", syscall.SIGUSR1))
	c.until(frame.Stdout, "usr1\n")
	c.send(frame.Signal, string(rune(syscall.SIGUSR2)))
	if c.until(0, ""); *c.end.Exit != (banger.Exit{Code: 9}) {
		t.Errorf("it has ended by %+v", c.end.Exit)
	}
	if err := m.Signal("sig", syscall.SIGUSR1); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("a signal after the end: %v", err)
	}
}

func TestCloseEndsAllSessions(t *testing.T) {
	m := manager(t, t.TempDir())
	for i := range 5 {
		_, err := m.Start(shell(fmt.Sprint("s", i), "trap '' TERM; sleep 1000"))
		must(t, err)
	}
	began := time.Now()
	m.Close(10 * time.Millisecond)
	for _, s := range m.List() {
		if s.State != banger.SessionEnded {
			t.Errorf("%s is %s after %s", s.Name, s.State, time.Since(began))
		}
	}
	if _, err := m.Start(shell("late", "true")); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("a start after the end: %v", err)
	}
}
