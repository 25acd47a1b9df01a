package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/agent/command"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/testing/agenttest"
	"banger/internal/testing/processtest"
)

// forever is a command that lives until it is signalled, and prints when it is up. The process that
// it waits for has no fifo open.
const forever = "echo ready; while :; do sleep 5 9>&- & wait $!; done"

func TestSignals(t *testing.T) {
	a := agenttest.Start(t)
	for _, tt := range []struct {
		name, script string
		sig          syscall.Signal
		out          string
		exit         banger.Exit
	}{
		{"a signal that is caught", "trap 'echo caught; exit 3' USR1; " + forever, syscall.SIGUSR1, "caught\n",
			banger.Exit{Code: 3}},
		{"a signal that ends it", forever, syscall.SIGTERM, "", banger.Exit{Signal: 15}},
		{"one that cannot be caught", "trap '' TERM; " + forever, syscall.SIGKILL, "", banger.Exit{Signal: 9}},
		// The other process is there when the script says so. A shell that is about to start one
		// blocks signals, and what comes then reaches the shell alone.
		{"one for the whole group", "sleep 600 & echo ready; wait; exit 1", syscall.SIGTERM, "", banger.Exit{Signal: 15}},
	} {
		f := agenttest.NewFifo(t)
		r := a.Run(t, agenttest.Shell("exec 9>$1; "+tt.script, f.Path))
		r.Until("ready\n")
		r.Send(frame.Signal, []byte{0xff}) // no such signal: ignored
		r.Send(frame.Signal, nil)
		r.Send(frame.Signal, []byte{byte(tt.sig)})
		if res := r.Finish(); string(res.Stdout) != tt.out || res.Exit != tt.exit {
			t.Errorf("%s: %q, %+v", tt.name, res.Stdout, res.Exit)
		}
		f.AwaitEnd(t) // of all who had the fifo
	}
}

func TestTerminal(t *testing.T) {
	a := agenttest.Start(t)
	term := func(script string) banger.Exec {
		e := agenttest.Shell(script)
		e.TTY, e.Rows, e.Cols = true, 33, 101
		return e
	}
	t.Run("has the size that was asked for", func(t *testing.T) {
		res := a.Run(t, term("stty size; tty >/dev/null && echo $TERM; echo err >&2")).Finish()
		if string(res.Stdout) != "33 101\r\nxterm\r\nerr\r\n" || res.Stderr != nil {
			t.Errorf("got %q, %q", res.Stdout, res.Stderr)
		}
	})
	t.Run("is resized, and its program learns it", func(t *testing.T) {
		r := a.Run(t, term("trap 'stty size; exit' WINCH; "+forever))
		r.Until("ready\r\n")
		r.Send(frame.Size, []byte("nonsense"))
		r.Send(frame.Size, []byte(`{"rows":50,"cols":132}`))
		if res := r.Finish(); string(res.Stdout) != "50 132\r\n" {
			t.Errorf("got %q", res.Stdout)
		}
	})
	t.Run("turns control-C into a signal", func(t *testing.T) {
		r := a.Run(t, term("trap 'echo interrupted; exit 2' INT; stty -echo; "+forever))
		r.Until("ready\r\n")
		r.Send(frame.Stdin, []byte{3})
		if res := r.Finish(); string(res.Stdout) != "interrupted\r\n" || res.Exit.Code != 2 {
			t.Errorf("got %+v", res)
		}
	})
	t.Run("ends its input at the client's end", func(t *testing.T) {
		r := a.Run(t, term("stty -echo; echo ready; cat"))
		r.Until("ready\r\n")
		if res := r.Feed([]byte("line\n")).Finish(); string(res.Stdout) != "line\r\n" || res.Exit != (banger.Exit{}) {
			t.Errorf("got %+v", res)
		}
	})
}

// TestClientGoesAway checks that a command whose client goes away gets SIGHUP, and is killed if
// that does not end it.
func TestClientGoesAway(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		tty          bool
		stdin        []byte
		said         string
	}{
		{"it is told", "trap 'echo hup >&9; exit' HUP; " + forever, false, nil, "hup\n"},
		{"it is told by its terminal", "trap 'echo hup >&9; exit' HUP; " + forever, true, nil, "hup\n"},
		{"it does not listen", "trap '' HUP; " + forever, false, nil, ""},
		{"its stdin is full", "trap 'echo hup >&9; exit' HUP; " + forever, false, agenttest.Noise(200_000), "hup\n"},
		{"its output is stuck", "trap 'echo hup >&9; exit' HUP; echo ready; yes & wait", false, nil, "hup\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := agenttest.Start(t)
			f := agenttest.NewFifo(t)
			e := agenttest.Shell("exec 9>$1; "+tt.script, f.Path)
			e.TTY, e.Stdin = tt.tty, tt.stdin != nil
			r := a.Run(t, e)
			r.Until("ready")
			for p := tt.stdin; len(p) > 0; p = p[min(len(p), frame.MaxData):] {
				r.Send(frame.Stdin, p[:min(len(p), frame.MaxData)])
			}
			r.Conn.Close()
			if said := f.AwaitEnd(t); said != tt.said {
				t.Errorf("it said %q", said)
			}
		})
	}
}

// TestGrandchildHoldsPipes checks that the end of a command counts, and not that of daemons that
// have its pipes open.
func TestGrandchildHoldsPipes(t *testing.T) {
	a := agenttest.Start(t)
	res := a.Run(t, agenttest.Shell("sleep 60 & echo $!")).Finish()
	pid, err := strconv.Atoi(strings.TrimSpace(string(res.Stdout)))
	if err != nil || res.Exit != (banger.Exit{}) {
		t.Fatalf("got %+v", res)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the grandchild is gone: %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	a := agenttest.Start(t)
	host, _ := os.Hostname()
	const show = `echo "$PATH|$HOME|$HOSTNAME|$TERM|$A"`
	for _, tt := range []struct {
		env  []string
		want string
	}{
		{nil, command.DefaultPath + "|/root|" + host + "||"},
		{[]string{"A=b=c d", "HOME=/h"}, command.DefaultPath + "|/h|" + host + "||b=c d"},
		{[]string{"PATH=/bin:/usr/bin", "HOSTNAME=x", "TERM=vt100"}, "/bin:/usr/bin|/root|x|vt100|"},
	} {
		e := agenttest.Shell(show)
		e.Env = tt.env
		if os.Geteuid() != 0 {
			e.User = "root" // its HOME; the agent cannot change who runs
		}
		if res := a.Run(t, e).Finish(); strings.TrimSpace(string(res.Stdout)) != tt.want {
			t.Errorf("%q gives %q", tt.env, res.Stdout)
		}
	}
	for in, want := range map[string]string{"": "/", "/tmp": "/tmp"} {
		if res := a.Run(t, banger.Exec{Args: []string{"pwd"}, Dir: in}).Finish(); string(res.Stdout) != want+"\n" {
			t.Errorf("in %q, pwd says %q", in, res.Stdout)
		}
	}
}

// TestADirectoryThatIsNotThereIsAnError checks that a command makes no directory to work in.
func TestADirectoryThatIsNotThereIsAnError(t *testing.T) {
	a := agenttest.Start(t)
	missing := filepath.Join(t.TempDir(), "not/there")
	for in, words := range map[string]string{missing: "does not exist", "/proc/version": "is not a directory"} {
		res := a.Run(t, banger.Exec{Args: []string{"pwd"}, Dir: in}).Finish()
		if res.Err == nil || res.Err.Code != banger.CodeCannotRun || !strings.Contains(res.Err.Message, words) {
			t.Errorf("in %q: %+v", in, res)
		}
	}
	if _, err := os.Stat(filepath.Dir(missing)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is made: %v", err)
	}
}

func TestUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root runs commands as others")
	}
	a := agenttest.Start(t)
	for spec, want := range map[string]string{
		"":           "0 0",
		"root":       "0 0",
		"nobody":     "65534 65534",
		"65534":      "65534 65534",
		"1234":       "1234 0", // docker's rule for a number that is not in passwd
		"1234:4321":  "1234 4321",
		"nobody:0":   "65534 0",
		"1234:root":  "1234 0",
		"4000000000": "4000000000 0",
	} {
		e := agenttest.Shell("echo $(id -u) $(id -g)")
		e.User = spec
		if res := a.Run(t, e).Finish(); strings.TrimSpace(string(res.Stdout)) != want {
			t.Errorf("user %q is %q, %v", spec, res.Stdout, res.Err)
		}
	}
}

// TestMainCommand checks that there is one main command per boot, and that any number of clients
// can wait for it at any time.
func TestMainCommand(t *testing.T) {
	a := agenttest.Start(t)
	if err := a.Signal(processtest.WithPatience(t), 15); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("a signal before there is a main command gives %v", err)
	}
	exits := make(chan error, 10)
	wait := func() {
		go func() {
			exit, err := a.Wait(processtest.WithPatience(t))
			if err == nil && exit != (banger.Exit{Code: 5}) {
				err = fmt.Errorf("it ended with %+v", exit)
			}
			exits <- err
		}()
	}
	wait()
	wait() // before the start, too
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a Wait that was given up returns %v", err)
	}
	f := agenttest.NewFifo(t)
	e := agenttest.Shell("exec 9>$1; trap 'echo told >&9; exit 5' USR2; "+forever, f.Path)
	e.Main = true
	if err := a.Start(processtest.WithPatience(t), e); err != nil {
		t.Fatal(err)
	}
	wait()
	if err := a.Start(processtest.WithPatience(t), e); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("a second main command gives %v", err)
	}
	if res := a.Run(t, e).Finish(); res.Err == nil || res.Err.Code != banger.CodeConflict {
		t.Errorf("a second main command by exec gives %+v", res)
	}
	agenttest.Await(t, "the main command catches its signal", func() bool { return caught(a, syscall.SIGUSR2) })
	if err := a.Signal(processtest.WithPatience(t), int(syscall.SIGUSR2)); err != nil {
		t.Error(err)
	}
	if said := f.AwaitEnd(t); said != "told\n" {
		t.Errorf("it said %q", said)
	}
	wait()
	for range 4 {
		if err := agenttest.Within(t, "Wait returns", exits); err != nil {
			t.Error(err)
		}
	}
	if err := a.Signal(processtest.WithPatience(t), 15); err != nil {
		t.Errorf("a signal for a main command that is over gives %v", err)
	}
	if err := a.Start(processtest.WithPatience(t), e); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("a main command after the main command gives %v", err)
	}
}

// caught reports whether a child of the agent catches sig (proc(5), SigCgt).
func caught(a *agenttest.Agent, sig syscall.Signal) bool {
	pids, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, p := range pids {
		status, _ := os.ReadFile(p)
		if !strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", a.PID)) {
			continue
		}
		_, rest, _ := strings.Cut(string(status), "SigCgt:\t")
		mask, _ := strconv.ParseUint(rest[:16], 16, 64)
		if mask&(1<<(sig-1)) != 0 {
			return true
		}
	}
	return false
}

// TestMainOutlivesItsClient checks that a main command that exec has started outlives its client.
// Its output is recorded all the time.
func TestMainOutlivesItsClient(t *testing.T) {
	a := agenttest.Start(t)
	e := agenttest.Shell("trap 'echo last words; exit 6' USR1; " + forever)
	e.Main = true
	output := a.Record(t, 0)
	r := a.Run(t, e)
	output.Until(t, "ready\n")
	r.Conn.Close()
	if err := a.Signal(processtest.WithPatience(t), int(syscall.SIGUSR1)); err != nil {
		t.Fatal(err)
	}
	if exit, err := a.Wait(processtest.WithPatience(t)); err != nil || exit.Code != 6 {
		t.Errorf("it ended with %+v, %v", exit, err)
	}
	err := agenttest.Within(t, "the output ends", output.Ended)
	if err != nil || output.Stdout() != "ready\nlast words\n" {
		t.Errorf("it has written %q, %v", output.Stdout(), err)
	}
	if said, err := os.ReadFile(a.Console); err != nil || len(said) > 0 {
		t.Errorf("the console says %q, %v", said, err)
	}
}

// TestShutdown checks that a shutdown is always answered. The main command gets the image's stop
// signal, and is killed after the grace period.
func TestShutdown(t *testing.T) {
	t.Run("of an idle agent", func(t *testing.T) {
		for range 20 { // the answer must not race with the exit
			a := agenttest.Start(t)
			if err := a.Shutdown(processtest.WithPatience(t), time.Second); err != nil {
				t.Fatal(err)
			}
			agenttest.Within(t, "the agent ends", a.Ended)
			if a.Status != nil {
				t.Errorf("the agent ended with %v", a.Status)
			}
		}
	})
	for name, tt := range map[string]struct {
		stopSignal syscall.Signal
		script     string
		grace      time.Duration
		said       string
	}{
		"of a main command that obeys": {0, "trap 'echo term >&9; exit' TERM; ", processtest.Patience, "term\n"},
		"by another signal": {syscall.SIGQUIT, "trap 'echo quit >&9; exit' QUIT; ", processtest.Patience,
			"quit\n"},
		"of a main command that does not":    {0, "trap '' TERM; ", 50 * time.Millisecond, ""},
		"of one that only cares for its own": {syscall.SIGUSR1, "trap '' USR1; ", 50 * time.Millisecond, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := agenttest.Start(t)
			if _, err := a.Configure(processtest.WithPatience(t), guest.Config{StopSignal: int(tt.stopSignal)}); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Configure(processtest.WithPatience(t), guest.Config{StopSignal: 9}); err != nil {
				t.Errorf("to configure again, which changes nothing, gives %v", err)
			}
			f := agenttest.NewFifo(t)
			e := agenttest.Shell("exec 9>$1; "+tt.script+forever, f.Path)
			e.Main = true
			output := a.Record(t, 0)
			a.Run(t, e)
			output.Until(t, "ready")
			if err := a.Shutdown(processtest.WithPatience(t), tt.grace); err != nil {
				t.Fatal(err)
			}
			if said := f.AwaitEnd(t); said != tt.said {
				t.Errorf("the main command said %q", said)
			}
			agenttest.Within(t, "the agent ends", a.Ended)
		})
	}
	t.Run("leaves no new commands", func(t *testing.T) {
		a := agenttest.Start(t)
		e := agenttest.Shell("trap 'echo stopping' TERM; " + forever)
		e.Main = true
		output := a.Record(t, 0)
		r := a.Run(t, e)
		output.Until(t, "ready")
		if err := a.Shutdown(processtest.WithPatience(t), processtest.Patience); err != nil {
			t.Fatal(err)
		}
		output.Until(t, "stopping")
		if res := a.Run(t, agenttest.Shell("true")).Finish(); res.Err == nil || res.Err.Code != banger.CodeConflict {
			t.Errorf("a command during the shutdown gives %+v", res)
		}
		r.Send(frame.Signal, []byte{9})
		agenttest.Within(t, "the agent ends", a.Ended)
	})
}

// TestNothingIsLeft checks that nothing is left in the agent of what has ended, neither descriptors
// nor zombies.
func TestNothingIsLeft(t *testing.T) {
	processtest.Long(t)
	a := agenttest.Start(t)
	use := func() {
		for i := range 20 {
			e := agenttest.Shell("cat; exit 1")
			e.Stdin, e.TTY = i%2 == 0, i%3 == 0
			r := a.Run(t, e)
			if i%4 == 0 {
				r.Until("")
				r.Conn.Close()
				continue
			}
			r.Feed(nil).Finish()
			a.Run(t, banger.Exec{Args: []string{"/no/such"}}).Finish()
		}
	}
	descriptors := func() int {
		entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.PID))
		return len(entries)
	}
	children := func() int {
		list, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", a.PID))
		n := 0
		for _, l := range list {
			data, _ := os.ReadFile(l)
			n += len(strings.Fields(string(data)))
		}
		return n
	}
	before := descriptors() // and what the poller takes
	use()
	agenttest.Await(t, "all is gone", func() bool { return children() == 0 && descriptors() <= before+3 })
}

// TestTheMainCommandsClientIsToldBeforeTheEnd: a shutdown that comes as soon as the command has ended waits for its
// client.
func TestTheMainCommandsClientIsToldBeforeTheEnd(t *testing.T) {
	a := agenttest.Start(t)
	e := agenttest.Shell("sleep 3 & echo said; exit 3") // whose output stays open, so that it is told late
	e.Main = true
	output := a.Record(t, 0)
	r := a.Run(t, e)
	if exit, err := a.Wait(processtest.WithPatience(t)); err != nil || exit.Code != 3 {
		t.Fatalf("it ends with %+v, %v", exit, err)
	}
	if err := a.Shutdown(processtest.WithPatience(t), time.Second); err != nil {
		t.Fatal(err)
	}
	if res := r.Finish(); len(res.Stdout) > 0 || res.Exit.Code != 3 || output.Stdout() != "said\n" {
		t.Errorf("its client is told %q, %+v, and the output is %q", res.Stdout, res.Exit, output.Stdout())
	}
	agenttest.Within(t, "the agent ends", a.Ended)
}

// TestAShutdownLetsWaitersReadTheEnd has waiters for the main command read their answers only after a shutdown has
// ended the command.
func TestAShutdownLetsWaitersReadTheEnd(t *testing.T) {
	a := agenttest.Start(t)
	f := agenttest.NewFifo(t)
	main := agenttest.Shell("exec 9>$1; trap 'exit 7' TERM; "+forever, f.Path)
	main.Main = true
	if err := a.Client.Start(processtest.WithPatience(t), main); err != nil {
		t.Fatal(err)
	}
	agenttest.Await(t, "the main command catches its signal", func() bool { return caught(a, syscall.SIGTERM) })
	var waiters []*agenttest.Running
	for range 4 {
		conn, err := a.Dial(processtest.WithPatience(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := frame.WriteJSON(conn, frame.Request, guest.Request{Op: guest.OpWait}); err != nil {
			t.Fatal(err)
		}
		waiters = append(waiters, agenttest.NewRunning(t, conn))
	}
	if _, err := a.Ping(processtest.WithPatience(t)); err != nil { // the agent has the requests before
		t.Fatal(err)
	}
	if err := a.Shutdown(processtest.WithPatience(t), time.Minute); err != nil {
		t.Fatal(err)
	}
	f.AwaitEnd(t)
	for i, w := range waiters {
		if res := w.Finish(); res.Exit.Code != 7 {
			t.Errorf("waiter %d gets %+v", i, res)
		}
		w.Conn.Close()
	}
	agenttest.Within(t, "the agent ends", a.Ended)
}
