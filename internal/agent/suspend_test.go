package agent

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/testing/agenttest"
	"banger/internal/testing/processtest"
)

// counts is a script that writes a growing file, whose path is its first argument. It opens the file once: after the
// end of its agent it may run for a moment, while the directory is removed.
const counts = "exec 9>>$1; echo ready; while :; do echo x >&9; sleep 0.01; done"

// startGuest starts an agent that is configured.
func startGuest(t *testing.T) *agenttest.Agent {
	t.Helper()
	a := agenttest.Start(t)
	if _, err := a.Configure(processtest.WithPatience(t), guest.Config{Hostname: "box"}); err != nil {
		t.Fatal(err)
	}
	return a
}

// startCounter starts the main command of a guest with a client, and returns its file.
func startCounter(t *testing.T, a *agenttest.Agent) (client *agenttest.Running, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "count")
	e := agenttest.Shell("trap 'echo last words; exit 6' USR1; "+counts, file)
	e.Main = true
	client = a.Run(t, e)
	wantRunning(t, file, true)
	return client, file
}

// wantRunning checks whether the file of a counter grows.
func wantRunning(t *testing.T, file string, want bool) {
	t.Helper()
	size := func() int64 {
		st, err := os.Stat(file)
		if err != nil {
			return 0
		}
		return st.Size()
	}
	before := size()
	if want {
		agenttest.Await(t, "the main command runs", func() bool { return size() > before })
		return
	}
	time.Sleep(100 * time.Millisecond) // ten rounds of the counter
	if after := size(); after != before {
		t.Errorf("the main command wrote %d bytes while it was frozen", after-before)
	}
}

func wantSuspended(t *testing.T, what string, r *agenttest.Running, words string) {
	t.Helper()
	res := r.Finish()
	if res.Err == nil || res.Err.Code != banger.CodeConflict ||
		!strings.Contains(res.Err.Error(), "the VM was suspended") || !strings.Contains(res.Err.Error(), words) {
		t.Errorf("%s is told %v, after %d bytes of output", what, res.Err, len(res.Stdout))
	}
	if _, _, err := r.Frames.Next(); err == nil {
		t.Errorf("the stream of %s goes on", what)
	}
}

// TestASuspendedGuestStandsStill is the story of a suspend whose snapshot fails, and then of one that is continued.
func TestASuspendedGuestStandsStill(t *testing.T) {
	a := startGuest(t)
	client, file := startCounter(t, a)
	f := agenttest.NewFifo(t)
	command := a.Run(t, agenttest.Shell("exec 9>$1; trap 'echo hup >&9; exit' HUP; "+forever, f.Path))
	command.Until("ready")
	for range 2 { // the second one finds it done
		if _, err := a.Suspend(processtest.WithPatience(t)); err != nil {
			t.Fatal(err)
		}
	}
	wantSuspended(t, "the client of a command", command, "run it again after banger resume")
	wantSuspended(t, "the client of the main command", client, "goes on after banger resume, without its client")
	wantRunning(t, file, false)
	if res := a.Run(t, agenttest.Shell("true")).Finish(); res.Err == nil || res.Err.Code != banger.CodeConflict ||
		!strings.Contains(res.Err.Message, "is being suspended") {
		t.Errorf("a command while it is suspended gives %+v", res)
	}
	_, failed := answer(t, startCopy(t, a, banger.FileRequest{Op: banger.FileExtract, Path: []byte(t.TempDir())}))
	if failed == nil || failed.Code != banger.CodeConflict {
		t.Errorf("a copy while it is suspended gives %v", failed)
	}

	for range 2 {
		if _, err := a.Thaw(processtest.WithPatience(t)); err != nil {
			t.Fatal(err)
		}
	}
	wantRunning(t, file, true)
	if said := f.AwaitEnd(t); said != "hup\n" {
		t.Errorf("the command said %q", said)
	}
	if res := a.Run(t, agenttest.Shell("echo well")).Finish(); string(res.Stdout) != "well\n" {
		t.Errorf("a command afterwards gives %+v", res)
	}

	if _, err := a.Suspend(processtest.WithPatience(t)); err != nil {
		t.Fatal(err)
	}
	wantRunning(t, file, false)
	if _, err := a.Restored(processtest.WithPatience(t), guest.Config{Seed: make([]byte, guest.MinSeed)}); err != nil {
		t.Fatal(err)
	}
	wantRunning(t, file, true)
	if err := a.Signal(processtest.WithPatience(t), 10); err != nil {
		t.Fatal(err)
	}
	if exit, err := a.Wait(processtest.WithPatience(t)); err != nil || exit.Code != 6 {
		t.Errorf("the main command ended with %+v, %v", exit, err)
	}
	a.Record(t, guest.FirstOutput).Until(t, "last words\n")
}

// TestAHeldGuestKeepsItsClients: a VM that goes on after its snapshot does not show it to them. A fork has none of
// them.
func TestAHeldGuestKeepsItsClients(t *testing.T) {
	for name, goOn := range map[string]func(*agenttest.Agent) error{
		"the VM goes on": func(a *agenttest.Agent) error { _, err := a.Thaw(processtest.WithPatience(t)); return err },
		"a fork goes on": func(a *agenttest.Agent) error {
			_, err := a.Restored(processtest.WithPatience(t), guest.Config{Seed: make([]byte, guest.MinSeed)})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := startGuest(t)
			_, file := startCounter(t, a)
			e := agenttest.Shell("echo ready; read line; echo $line")
			e.Stdin = true
			early := a.Run(t, e)
			early.Until("ready")
			if _, err := a.Hold(processtest.WithPatience(t)); err != nil {
				t.Fatal(err)
			}
			wantRunning(t, file, false)
			late := a.Run(t, agenttest.Shell("echo late"))
			if err := goOn(a); err != nil {
				t.Fatal(err)
			}
			wantRunning(t, file, true)
			if name == "a fork goes on" {
				wantSuspended(t, "the client of a command", early, "run it again")
				return
			}
			if res := early.Feed([]byte("still here\n")).Finish(); string(res.Stdout) != "still here\n" {
				t.Errorf("the command of before gives %+v", res)
			}
			if res := late.Finish(); string(res.Stdout) != "late\n" {
				t.Errorf("the command of meanwhile gives %+v", res)
			}
		})
	}
}

// TestWhatWaitsDuringAHold begins when the VM goes on, and never in a fork.
func TestWhatWaitsDuringAHold(t *testing.T) {
	for _, forked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{suspended: true, held: &hold{over: make(chan struct{})}, clients: map[*client]bool{}}
			result := make(chan error, 1)
			go func() {
				_, err := s.enter()
				result <- err
			}()
			synctest.Wait()
			s.mu.Lock()
			s.endHold(forked)
			s.suspended = false
			s.mu.Unlock()
			if err := <-result; (err != nil) != forked {
				t.Errorf("forked %t: it gives %v", forked, err)
			}
		})
	}
}

// TestASuspendEndsCopies in both directions.
func TestASuspendEndsCopies(t *testing.T) {
	a := startGuest(t)
	dir, _ := tree(t)
	in := startCopy(t, a, banger.FileRequest{Op: banger.FileExtract, Path: []byte(t.TempDir())})
	in.Send(frame.Stdin, []byte("the beginning of a tar"))
	big := bytes.Repeat([]byte("more than a stream holds"), 1<<20)
	if err := os.WriteFile(filepath.Join(dir, "deep", "big"), big, 0o600); err != nil {
		t.Fatal(err)
	}
	out := startCopy(t, a, banger.FileRequest{Op: banger.FileArchive, Path: []byte(dir), Name: []byte("copy")})
	if _, _, err := out.Frames.Next(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := a.Suspend(processtest.WithPatience(t))
		done <- err
	}()
	wantSuspended(t, "the client of a copy in", in, "copy again after banger resume")
	wantSuspended(t, "the client of a copy out", out, "copy again after banger resume")
	if err := agenttest.Within(t, "the guest is suspended", done); err != nil {
		t.Fatal(err)
	}
}

// TestASuspendEndsForwards, at both ends.
func TestASuspendEndsForwards(t *testing.T) {
	a := startGuest(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	far, err := a.DialLocal(processtest.WithPatience(t), port)
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	if _, err := a.Suspend(processtest.WithPatience(t)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]net.Conn{"the host's": far, "the guest's": near} {
		c.SetReadDeadline(time.Now().Add(processtest.Patience))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s end: %v", name, err)
		}
	}
	if _, err := a.DialLocal(processtest.WithPatience(t), port); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("a forward while it is suspended gives %v", err)
	}
}

// TestAClientThatReadsNothingHoldsUpNoSuspend has one whose command prints for ever.
func TestAClientThatReadsNothingHoldsUpNoSuspend(t *testing.T) {
	a := startGuest(t)
	r := a.Run(t, agenttest.Shell("echo $$.; exec yes"))
	pid, _, _ := strings.Cut(r.Until("."), ".")
	agenttest.Await(t, "it waits for its client", func() bool {
		stat, _ := os.ReadFile("/proc/" + pid + "/stat")
		return strings.HasPrefix(string(stat), pid+" (yes) S")
	})
	start := time.Now()
	if _, err := a.Suspend(processtest.WithPatience(t)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 2*partTime {
		t.Errorf("the suspend took %s", took)
	}
}

// TestASuspendedGuestCanBeEnded: its main command can obey.
func TestASuspendedGuestCanBeEnded(t *testing.T) {
	a := startGuest(t)
	_, _ = startCounter(t, a)
	if _, err := a.Suspend(processtest.WithPatience(t)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := a.Shutdown(processtest.WithPatience(t), processtest.Patience); err != nil {
		t.Fatal(err)
	}
	agenttest.Within(t, "the agent ends", a.Ended)
	if took := time.Since(start); took > processtest.Patience/2 {
		t.Errorf("it took %s", took)
	}
}

// freezeSystem is a guest whose Freeze does what a test wants.
type freezeSystem struct {
	*hostSystem
	freeze func(context.Context) error
	thaws  int
}

func (f *freezeSystem) Freeze(ctx context.Context) error { return f.freeze(ctx) }
func (f *freezeSystem) Thaw()                            { f.thaws++ }

// TestASuspendThatFailsIsUndone: the guest goes on, and takes commands.
func TestASuspendThatFailsIsUndone(t *testing.T) {
	begun := make(chan struct{}, 1)
	for name, tt := range map[string]struct {
		freeze func(context.Context) error
		leave  bool // the host goes away meanwhile
		words  string
	}{
		"a process does not stop": {func(context.Context) error {
			return banger.Errorf(banger.CodeTimeout, "the process 7 does not stop")
		}, false, "was not suspended, and goes on: the process 7 does not stop"},
		"the host goes away": {func(ctx context.Context) error {
			begun <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}, true, "context canceled"},
		"the host goes away unseen": {func(ctx context.Context) error {
			begun <- struct{}{}
			<-ctx.Done()
			return nil
		}, true, "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &freezeSystem{hostSystem: newHostSystem(), freeze: tt.freeze}
			s := newServer(d, nil)
			if err := s.configure(&guest.Config{Hostname: "box"}); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			client := guest.Client{Dial: func(context.Context) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() {
					s.handle(guest.AgentPort, theirs)
					close(ended)
				}()
				return ours, nil
			}}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.leave {
				go func() {
					<-begun
					cancel()
				}()
			}
			_, err := client.Suspend(ctx)
			if err == nil || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("the host gets %v", err)
			}
			agenttest.Within(t, "the request ends", ended)
			if c, err := s.enter(); err != nil || d.thaws != 1 {
				t.Errorf("afterwards a command gives %v, and %d thaws", err, d.thaws)
			} else {
				c.leave()
			}
		})
	}
}

// TestWhatCannotBeSuspended is a guest that starts, and one that ends.
func TestWhatCannotBeSuspended(t *testing.T) {
	a := agenttest.Start(t)
	if _, err := a.Suspend(processtest.WithPatience(t)); banger.CodeOf(err) != banger.CodeConflict ||
		!strings.Contains(err.Error(), "still starting") {
		t.Errorf("a guest without its configuration gives %v", err)
	}
	s := newServer(newHostSystem(), nil)
	s.configured, s.stopping = true, true
	if _, err := s.prepareSuspend(t.Context(), false); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("a guest that ends gives %v", err)
	}
	if _, err := a.Thaw(processtest.WithPatience(t)); err != nil {
		t.Errorf("a thaw of what is not frozen gives %v", err)
	}
}
