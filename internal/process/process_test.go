package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestMain lets the test start itself as a process that waits: "TEST wait NAME".
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "wait" {
		time.Sleep(time.Minute)
	}
	os.Exit(m.Run())
}

func start(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// TestOwnProcessesAreFoundAndEnded also checks that processes which only look similar are not ended.
func TestOwnProcessesAreFoundAndEnded(t *testing.T) {
	own := start(t, os.Args[0], "wait", t.Name())
	script := filepath.Join(t.TempDir(), "alike")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nsleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	alike := start(t, "/bin/sh", "-c", "sleep 60; :", "wait", t.Name()) // another program
	found := map[int]bool{}
	mine := func(uid uint32) bool { return int(uid) == os.Getuid() }
	err := Each([]string{"self", "wait"}, mine, func(last string, pid int) {
		if last == t.Name() {
			found[pid] = true
		}
	})
	if err != nil || len(found) != 1 || !found[own.Process.Pid] {
		t.Errorf("found are %v, not %d alone (%v)", found, own.Process.Pid, err)
	}
	err = Each([]string{"self", "wait"}, func(uint32) bool { return false },
		func(string, int) { t.Error("a stranger's process is found") })
	if err != nil {
		t.Error(err)
	}
	KillOwn(alike.Process.Pid, time.Second)
	KillOwn(own.Process.Pid, 10*time.Second)
	if state := stateOf(t, own.Process.Pid); state != "Z" { // ended, but not yet reaped by this process
		t.Errorf("our process is in state %s", state)
	}
	if state := stateOf(t, alike.Process.Pid); state == "Z" {
		t.Error("another's program is ended")
	}
}

// stateOf returns the state of a process as in proc_pid_stat(5).
func stateOf(t *testing.T, pid int) string {
	t.Helper()
	out, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out[:1])
}

// TestTheEndOfAProcessIsAwaited also checks that Wait ends with its context.
func TestTheEndOfAProcessIsAwaited(t *testing.T) {
	cmd := start(t, os.Args[0], "wait", t.Name())
	end, err := Watch(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := end.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it runs: %v", err)
	}
	cmd.Process.Kill()
	if err := end.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	cmd.Wait()
	gone, err := Watch(cmd.Process.Pid)
	if err != nil || gone.Wait(t.Context()) != nil {
		t.Errorf("what has ended before is not over: %v", err)
	}
}

// TestAProcessSaysThatItIsReady checks what is made of what a process writes.
func TestAProcessSaysThatItIsReady(t *testing.T) {
	for said, want := range map[string]string{
		"ready\n":             "",
		"the port is taken\n": "the port is taken",
		"ready":               "ready", // it was cut off
		"":                    ErrSilent.Error(),
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		w.WriteString(said)
		w.Close()
		err = AwaitReady(t.Context(), r)
		if got := fmt.Sprint(err); (err == nil) != (want == "") || err != nil && got != want {
			t.Errorf("%q is %q", said, got)
		}
		r.Close()
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := AwaitReady(ctx, r); !errors.Is(err, context.Canceled) {
		t.Errorf("a process that says nothing: %v", err)
	}
}
