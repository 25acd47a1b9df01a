package boot

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger/internal/testing/agenttest"
	"banger/internal/testing/processtest"
)

// TestSystemdIsAwaited: one that listens and says nothing, or something else, does not obey yet.
func TestSystemdIsAwaited(t *testing.T) {
	for name, tt := range map[string]struct {
		says []string // one answer to each connection, then the last again; "": it hangs up
		want error
	}{
		"it obeys":                   {[]string{"OK 0123456789abcdef0123456789abcdef\r\n"}, nil},
		"it obeys later":             {[]string{"", "REJECTED EXTERNAL\r\n", "OK 0123456789abcdef0123456789abcdef\r\n"}, nil},
		"it lets nobody in":          {[]string{"REJECTED EXTERNAL\r\n"}, context.Canceled},
		"something else is there":    {[]string{"SSH-2.0-x\r\n"}, context.Canceled},
		"something talks for ever":   {[]string{string(agenttest.Noise(1 << 20))}, context.Canceled},
		"half an answer, then it is": {[]string{"OK"}, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "private")
			ctx, cancel := context.WithCancel(processtest.WithPatience(t))
			defer cancel()
			result := make(chan error, 1)
			go func() { result <- awaitSystemd(ctx, socket) }() // before anybody listens
			ln, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go func() { // ends with ln
				for i := 0; ; i++ {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					if line, err := bufio.NewReader(conn).ReadString('\n'); line != "\x00AUTH EXTERNAL 30\r\n" {
						t.Errorf("it is asked %q, %v", line, err)
					}
					io.WriteString(conn, tt.says[min(i, len(tt.says)-1)])
					conn.Close()
					if i == len(tt.says) { // the last answer was heard and was none
						cancel()
					}
				}
			}()
			if err := agenttest.Within(t, "the wait ends", result); !errors.Is(err, tt.want) {
				t.Errorf("the wait ends with %v", err)
			}
		})
	}
}

// TestPID1BecomesTheImagesInit: until then it is the agent. Only systemd is asked whether it obeys.
func TestPID1BecomesTheImagesInit(t *testing.T) {
	proc := t.TempDir()
	become := func(pid, exe string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Join(proc, pid), 0o700), os.Symlink(exe, filepath.Join(proc, pid, "new")),
			os.Rename(filepath.Join(proc, pid, "new"), filepath.Join(proc, pid, "exe"))); err != nil {
			t.Fatal(err)
		}
	}
	become("self", "/init (deleted)")
	for exe, ready := range map[string]bool{
		"/sbin/openrc-init": true, "/usr/lib/systemd/systemd": false, "/init (deleted)": false,
	} {
		become("1", "/init (deleted)")
		ctx, cancel := context.WithTimeout(t.Context(), 4*readyEvery)
		if ready {
			ctx = processtest.WithPatience(t)
		}
		result := make(chan error, 1)
		go func() { result <- awaitInit(ctx, proc, filepath.Join(proc, "nobody listens")) }()
		become("1", exe)
		if err := agenttest.Within(t, "the wait ends", result); (err == nil) != ready {
			t.Errorf("with %s as PID 1 the wait ends with %v", exe, err)
		}
		cancel()
	}
	short, cancel := context.WithTimeout(t.Context(), 3*readyEvery)
	defer cancel()
	if err := awaitInit(short, filepath.Join(proc, "none"), ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without /proc the wait ends with %v, not with its context", err)
	}
}

// TestASilentSystemdEndsWithTheWait: nothing comes of a socket that is only listened at.
func TestASilentSystemdEndsWithTheWait(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "private")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithCancel(processtest.WithPatience(t))
	result := make(chan error, 1)
	go func() { result <- awaitSystemd(ctx, socket) }()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	start := time.Now()
	if err := agenttest.Within(t, "the wait ends", result); !errors.Is(err, context.Canceled) ||
		time.Since(start) > readyAnswer {
		t.Errorf("the wait ends with %v after %s", err, time.Since(start))
	}
}
