package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"banger"
	"banger/internal/api"
	"banger/internal/host"
	"banger/internal/private"
)

// daemonStart is the maximum time for the start of a daemon, which may have VMs to adopt.
const daemonStart = 60 * time.Second

// connect makes sure that a daemon answers, and starts one if necessary.
func (a *app) connect(ctx context.Context) (*api.Client, error) {
	if err := private.Make(a.paths.Run, host.DirMode()); err != nil {
		return nil, err
	}
	if !a.daemonRuns(ctx) {
		if err := a.startOnce(ctx); err != nil {
			if refused, ok := errors.AsType[*banger.Error](err); ok {
				return nil, refused
			}
			return nil, banger.Errorf(banger.CodeUnavailable, "cannot start the daemon: %w", err)
		}
	}
	return a.client, a.sameState()
}

// sameState returns an error if the daemon that answered last keeps its VMs in another directory than
// BANGER_STATE_DIR.
func (a *app) sameState() error {
	if os.Getenv("BANGER_STATE_DIR") == "" || a.daemonState == "" || sameDir(a.daemonState, a.paths.State) {
		return nil
	}
	return banger.Errorf(banger.CodeConflict, "the daemon in %s keeps its VMs in %s, not in BANGER_STATE_DIR, %s",
		a.paths.Run, a.daemonState, a.paths.State).
		WithHint("set BANGER_RUN_DIR to another directory as well")
}

func sameDir(a, b string) bool {
	if a == b {
		return true
	}
	ai, aerr := os.Stat(a)
	bi, berr := os.Stat(b)
	return aerr == nil && berr == nil && os.SameFile(ai, bi)
}

// daemonRuns reports whether a daemon answers a request. A connection alone proves nothing, because the socket of a
// dying daemon still accepts connections. An error that the daemon returns counts as an answer.
func (a *app) daemonRuns(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, daemonStart)
	defer cancel()
	v, err := a.client.Version(ctx)
	a.daemonState = v.State
	return err == nil || banger.CodeOf(err) != banger.CodeUnavailable
}

// startOnce starts the daemon unless another client has already started it.
func (a *app) startOnce(ctx context.Context) error {
	if err := private.Make(a.paths.State, host.DirMode()); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(a.paths.State, "daemon.start"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close() // also releases the lock
	locked := make(chan error, 1)
	go func() { locked <- syscall.Flock(int(f.Fd()), syscall.LOCK_EX) }() // the other client's daemonStart bounds the wait
	select {
	case err := <-locked:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	if a.daemonRuns(ctx) {
		return nil
	}
	return a.startDaemon(ctx)
}

func (a *app) logPath() string { return filepath.Join(a.paths.State, "daemon.log") }

// startDaemon starts `banger daemon run` as a process of its own and returns when the daemon is ready. The child
// writes "ready" or its error to a pipe.
func (a *app) startDaemon(ctx context.Context) error {
	logFile, err := os.OpenFile(a.logPath(), os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", "daemon", "run", "--ready-fd=3")
	cmd.Args[0] = "banger"
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = "/", logFile, logFile, []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, daemonStart)
	defer cancel()
	defer context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Unix(1, 0)) })()
	line, err := io.ReadAll(io.LimitReader(r, 4096))
	switch {
	case string(line) == "ready\n":
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case len(line) == 0:
		return fmt.Errorf("it ended at once; see %s", a.logPath())
	}
	return errors.New(strings.TrimSpace(string(line)))
}
