package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api"
	"banger/internal/host"
	"banger/internal/private"
	"banger/internal/process"
)

// DaemonOptions are the options for starting a daemon.
type DaemonOptions struct {
	StateDir, RunDir, Socket string
	Accel                    string // BANGER_ACCEL: "", kvm or tcg
	Log                      *slog.Logger
	Ready                    func() // called when the daemon answers
}

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

func (a *app) daemonCommand() *cobra.Command {
	c := &cobra.Command{Use: "daemon", Short: "Run, inspect or stop the daemon"}
	var readyFD int
	run := &cobra.Command{Use: "run", Short: "Run the daemon in the foreground", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runDaemon(readyFD) }}
	run.Flags().IntVar(&readyFD, "ready-fd", 0, "descriptor to report readiness on")
	run.Flags().MarkHidden("ready-fd")
	status := &cobra.Command{Use: "status", Short: "Show the daemon's state; exit 1 when none runs", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !a.daemonRuns(cmd.Context()) {
				fmt.Fprintf(a.stdout, "no daemon runs (socket %s)\n", a.paths.Socket())
				return &exitError{code: exitFailed}
			}
			v, err := a.client.Version(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "running: pid %d, version %s, since %s\nsocket:  %s\nstate:   %s\nlog:     %s\nvmm:     %s\nkvm:     %s\n",
				v.PID, v.Version, v.Started.Local().Format(time.DateTime), a.paths.Socket(), a.paths.State, a.logPath(), v.VMM, v.KVM)
			return nil
		}}
	stop := &cobra.Command{Use: "stop", Short: "Stop the daemon; VMs go on running", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.stopDaemon(cmd.Context()) }}
	c.AddCommand(run, status, stop)
	return c
}

func (a *app) runDaemon(readyFD int) error {
	report := func(string) {}
	if readyFD > 0 {
		syscall.CloseOnExec(readyFD)
		f := os.NewFile(uintptr(readyFD), "ready")
		report = func(s string) { io.WriteString(f, s+"\n"); f.Close() }
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ready := false
	err := a.procs.Daemon(ctx, a.daemonOptions(func() { ready = true; report("ready") }))
	if err != nil && !ready {
		report(err.Error())
	}
	return err
}

func (a *app) recoverCommand() *cobra.Command {
	return &cobra.Command{Use: "recover", Short: "Make the rows of VMs again whose database was lost", Args: usage(cobra.NoArgs),
		Long: `Make the rows of VMs again, while no daemon runs. If the database is damaged, or knows no VM, the last good copy that
knows one takes its place. Then each VM's directory without a row gets one from the record beside it, also those that
a daemon has set aside. Nothing is removed: what is replaced gets another name. VMs that run go on.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.procs.Recover(cmd.Context(), a.daemonOptions(func() {}), a.stdout)
		}}
}

func (a *app) daemonOptions(ready func()) DaemonOptions {
	return DaemonOptions{StateDir: a.paths.State, RunDir: a.paths.Run, Socket: a.paths.Socket(),
		Accel: os.Getenv("BANGER_ACCEL"), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Ready: ready}
}

// stopDaemon asks the daemon to end and returns when its process has ended.
func (a *app) stopDaemon(ctx context.Context) error {
	if !a.daemonRuns(ctx) {
		return nil
	}
	v, err := a.client.Version(ctx)
	if err != nil {
		return err
	}
	ended, err := process.Watch(v.PID)
	if err != nil {
		return err
	}
	defer ended.Close()
	if _, err := a.client.Shutdown(ctx); err != nil {
		return err
	}
	return ended.Wait(ctx)
}

func (a *app) shimCommand() *cobra.Command {
	return &cobra.Command{Use: "shim DIR", Hidden: true, Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return a.procs.Shim(context.Background(), args[0]) }}
}

// vmmCommand returns the command with which a shim starts its VMM. The process becomes the VMM's program.
func (a *app) vmmCommand() *cobra.Command {
	return &cobra.Command{Use: "vmm-exec DIR COMMAND...", Hidden: true, Args: usage(cobra.MinimumNArgs(2)), DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error { return a.procs.VMM(args[0], args[1:]) }}
}
