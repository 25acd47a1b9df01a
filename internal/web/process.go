package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"banger"
	"banger/internal/private"
	"banger/internal/process"
)

// Names of files in the runtime directory.
const (
	ControlFile = "ui.sock" // the process of the UI hears there what the daemon wants
	LockFile    = "ui.lock" // held while that process runs
)

// tidyTime is the pause between two calls of Tidy.
const tidyTime = time.Minute

// lockTime is how long a process may take to end.
const lockTime = 5 * time.Second

// Run serves the UI until it has been idle for IdleTime, or ctx ends. It calls ready once it can be asked to open. It
// fails if another process serves the UI of this runtime directory.
func (s *Server) Run(ctx context.Context, runDir string, ready func()) error {
	lock, _, err := private.Take(runDir, LockFile, lockTime)
	if err != nil {
		return err
	}
	defer lock.Remove()
	if err := lock.Write(private.Owner{PID: os.Getpid(), Run: runDir}); err != nil {
		return err
	}
	ln, err := private.Listen(filepath.Join(runDir, ControlFile))
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	control := &http.Server{Handler: s.control(stop), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- control.Serve(ln) }() // ends with Close
	ready()
	tick := time.NewTicker(tidyTime)
	defer tick.Stop()
	for err == nil {
		select {
		case <-tick.C:
			if s.Tidy(ctx) {
				continue
			}
			stop()
		case <-ctx.Done():
			err = http.ErrServerClosed
		case err = <-failed:
		}
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	s.Close(limit)
	if control.Shutdown(limit) != nil {
		control.Close()
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// control answers the daemon.
func (s *Server) control(stop func()) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /open", func(w http.ResponseWriter, _ *http.Request) {
		o, err := s.Open()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		json.NewEncoder(w).Encode(o)
	})
	mux.HandleFunc("POST /stop", func(http.ResponseWriter, *http.Request) { stop() })
	return mux
}

// Launcher starts and asks the process of the UI.
type Launcher struct {
	RunDir string
	Argv   []string // starts the process, whose program calls Run and writes "ready" to descriptor 3

	mu sync.Mutex // one start at a time
}

// startTime bounds the start of the process.
const startTime = 20 * time.Second

// Open returns an address for one browser. It starts the process if none runs, also if the one that runs is of another
// version of banger.
func (l *Launcher) Open(ctx context.Context) (Opened, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	o, err := l.ask(ctx, "/open")
	if err == nil && o.Version == banger.Version {
		return o, nil
	}
	if err == nil {
		if err := l.stop(ctx); err != nil {
			return Opened{}, err
		}
	}
	if err := l.start(ctx); err != nil {
		return Opened{}, banger.Errorf(banger.CodeUnavailable, "the web UI does not start: %w", err)
	}
	if o, err = l.ask(ctx, "/open"); err != nil {
		return Opened{}, banger.Errorf(banger.CodeUnavailable, "the web UI does not answer: %w", err)
	}
	return o, nil
}

// Close ends the process and all sessions, and returns when it has ended. It is no error if no process runs.
func (l *Launcher) Close(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stop(ctx)
}

func (l *Launcher) stop(ctx context.Context) error {
	if _, err := l.ask(ctx, "/stop"); err != nil {
		return nil // none runs
	}
	lock, _, err := private.Take(l.RunDir, LockFile, lockTime)
	if err != nil {
		return banger.Errorf(banger.CodeTimeout, "the web UI does not end: %w", err)
	}
	return lock.Remove()
}

// ask sends a request to the process.
func (l *Launcher) ask(ctx context.Context, path string) (o Opened, err error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return private.Dial(ctx, filepath.Join(l.RunDir, ControlFile))
	}
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(ctx, "POST", "http://ui"+path, nil)
	if err != nil {
		return o, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return o, err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(said)))
	}
	if err == nil && len(said) > 0 {
		err = json.Unmarshal(said, &o)
	}
	return o, err
}

// start starts the process and returns when it can be asked. The process goes on when this one ends.
func (l *Launcher) start(ctx context.Context) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(l.Argv[0], l.Argv[1:]...)
	cmd.Args[0] = "banger"
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	go cmd.Wait() // ends with the process, which would otherwise become a zombie
	return process.AwaitReady(ctx, r)
}
