package child_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"banger/internal/vmm"
	"banger/internal/vmm/child"
)

// TestAStoppedProcess: when Stop returns, every thread has stopped. A process can be stopped twice,
// can continue, and can be killed while it is stopped.
func TestAStoppedProcess(t *testing.T) {
	for range 10 { // a thread may be anywhere
		p := busy(t)
		for range 2 {
			if err := p.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if s := states(t, p); len(s) < 5 || strings.Trim(s, "T") != "" {
				t.Fatalf("the states of its threads are %q", s)
			}
		}
		if !p.Handle().Alive() {
			t.Error("a stopped process is not alive")
		}
		if err := p.Continue(); err != nil {
			t.Fatal(err)
		}
		if s := states(t, p); strings.Contains(s, "T") {
			t.Errorf("after Continue the states of its threads are %q", s)
		}
		if err := errors.Join(p.Stop(t.Context()), p.Kill()); err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		if err := p.Stop(t.Context()); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("stopping what has ended: %v", err)
		}
		if err := errors.Join(p.Continue(), p.Kill()); err != nil {
			t.Errorf("continuing and killing what has ended: %v", err)
		}
	}
}

// TestAStopThatIsGivenUp leaves the process running, whenever the caller gives up.
func TestAStopThatIsGivenUp(t *testing.T) {
	p := busy(t)
	failed := 0
	for i := range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*5*time.Microsecond)
		err := p.Stop(ctx)
		cancel()
		s := states(t, p)
		if err == nil {
			if strings.Trim(s, "T") != "" {
				t.Fatalf("it is stopped, and the states of its threads are %q", s)
			}
		} else if failed++; !errors.Is(err, context.DeadlineExceeded) || strings.Contains(s, "T") {
			t.Fatalf("the error is %v, and the states of its threads are %q", err, s)
		}
		if err := p.Continue(); err != nil {
			t.Fatal(err)
		}
	}
	if failed == 0 {
		t.Error("no stop was given up")
	}
}

// busy starts a process of many threads that all run.
func busy(t *testing.T) *child.Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	p := start(t, child.Command{Config: vmm.Config{Dir: t.TempDir()}, Console: w,
		Program: self, Args: []string{"-test.run=^TestBusy$", "busy"}})
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, r) // ends with w, below
	t.Cleanup(func() { w.Close() })
	return p
}

// TestBusy is the process of busy.
func TestBusy(*testing.T) {
	if flag.Arg(0) != "busy" {
		return
	}
	running := make(chan bool)
	for range 4 {
		go func() {
			runtime.LockOSThread()
			for running <- true; ; {
				os.Getppid()
			}
		}()
	}
	for range 4 {
		<-running
	}
	fmt.Println("ready")
	select {}
}

// states returns the states of a process's threads, one letter each (proc(5)).
func states(t *testing.T, p *child.Process) (letters string) {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Handle().PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		letters += rest[:1]
	}
	return letters
}
