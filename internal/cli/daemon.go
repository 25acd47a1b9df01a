package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api/wire"
	"banger/internal/cli/command"
	"banger/internal/logfile"
	"banger/internal/process"
)

// DaemonOptions are the options for starting a daemon.
type DaemonOptions struct {
	StateDir, RunDir, Socket string

	Accel   string // BANGER_ACCEL: "", kvm or tcg
	Log     *slog.Logger
	LogFile string // of Log; "" if it has none
	Ready   func() // called when the daemon answers
}

func newDaemon(a *app) *cobra.Command {
	c := &cobra.Command{Use: "daemon", Short: "Run, inspect or stop the daemon"}
	var readyFD int
	var level string
	run := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon in the foreground",
		Args:  command.Usage(cobra.NoArgs),
		RunE:  func(*cobra.Command, []string) error { return a.runDaemon(readyFD, level) },
	}
	run.Flags().StringVar(&level, "log-level", cmp.Or(os.Getenv("BANGER_LOG_LEVEL"), "info"),
		"what to log: debug, info, warn or error (default: BANGER_LOG_LEVEL)")
	run.Flags().IntVar(&readyFD, "ready-fd", 0, "descriptor to report readiness on")
	run.Flags().MarkHidden("ready-fd")
	status := &cobra.Command{
		Use:   "status",
		Short: "Show the daemon's state; exit 1 when none runs",
		Args:  command.Usage(cobra.NoArgs),
	}
	parsed := command.FormatsOne(status, "")
	status.RunE = func(c *cobra.Command, _ []string) error {
		f, err := parsed()
		if err != nil {
			return err
		}
		return a.daemonStatus(c.Context(), f)
	}
	c.AddCommand(run, newDaemonLogs(a), status, &cobra.Command{
		Use:   "stop",
		Short: "Stop the daemon; VMs go on running",
		Args:  command.Usage(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.stopDaemon(cmd.Context()) },
	})
	return c
}

// daemonStatus prints the state of the daemon. It returns an error with exit code 1 if no daemon runs.
func (a *app) daemonStatus(ctx context.Context, f command.Format) error {
	if !a.DaemonRuns(ctx) {
		fmt.Fprintf(a.Stdout, "no daemon runs (socket %s)\n", a.Paths.Socket())
		return &command.ExitError{Code: command.ExitFailed}
	}
	v, err := a.Client.Version(ctx)
	if err != nil {
		return err
	}
	if !f.IsText() {
		return command.Write(a.App, f, []wire.Version{v}, func(v wire.Version) map[string]any {
			return map[string]any{"ServerVersion": v.Version, "Driver": v.VMM}
		})
	}
	fmt.Fprintf(a.Stdout, "running: pid %d, version %s, since %s\n", v.PID, v.Version,
		v.Started.Local().Format(time.DateTime))
	fmt.Fprintf(a.Stdout, "socket:  %s\nstate:   %s\nlog:     %s\nvmm:     %s\nkvm:     %s\n",
		a.Paths.Socket(), a.Paths.State, a.LogPath(), v.VMM, v.KVM)
	return nil
}

func newDaemonLogs(a *app) *cobra.Command {
	var tail string
	var follow bool
	c := &cobra.Command{
		Use:   "logs",
		Short: "Show what the daemon has logged, with or without a daemon",
		Args:  command.Usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := command.TailLines(tail)
			if err != nil {
				return err
			}
			return logfile.Read(cmd.Context(), a.LogPath(), n, follow, a.Stdout)
		},
	}
	c.Flags().StringVarP(&tail, "tail", "n", "all", "number of lines from the end")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "wait for new lines")
	return c
}

// logger returns the daemon's logger. It writes to a file if a client has started the daemon, and otherwise to the
// terminal.
func (a *app) logger(level string, toFile bool) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, command.UsageErrorf("the log level is %q, but must be debug, info, warn or error", level)
	}
	var w io.Writer = os.Stderr
	if toFile {
		w = logfile.Open(a.LogPath()) // the end of the process closes it
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}

// runDaemon runs the daemon in this process until a signal or a client ends it. readyFD is the descriptor on which the
// client waits that has started this process; 0 means that there is no such client.
func (a *app) runDaemon(readyFD int, level string) error {
	log, err := a.logger(level, readyFD > 0)
	if err != nil {
		return err
	}
	report := func(string) {}
	if readyFD > 0 {
		syscall.CloseOnExec(readyFD)
		f := os.NewFile(uintptr(readyFD), "ready")
		report = func(s string) { io.WriteString(f, s+"\n"); f.Close() }
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ready := false
	o := a.daemonOptions(log, func() { ready = true; report("ready") })
	if readyFD > 0 {
		o.LogFile = a.LogPath()
	}
	err = a.procs.Daemon(ctx, o)
	if err != nil && !ready {
		report(err.Error())
	}
	return err
}

func (a *app) daemonOptions(log *slog.Logger, ready func()) DaemonOptions {
	return DaemonOptions{
		StateDir: a.Paths.State,
		RunDir:   a.Paths.Run,
		Socket:   a.Paths.Socket(),
		Accel:    os.Getenv("BANGER_ACCEL"),
		Log:      log,
		Ready:    ready,
	}
}

// stopDaemon asks the daemon to end and returns when its process has ended.
func (a *app) stopDaemon(ctx context.Context) error {
	if !a.DaemonRuns(ctx) {
		return nil
	}
	v, err := a.Client.Version(ctx)
	if err != nil {
		return err
	}
	ended, err := process.Watch(v.PID)
	if err != nil {
		return err
	}
	defer ended.Close()
	if _, err := a.Client.Shutdown(ctx); err != nil {
		return err
	}
	return ended.Wait(ctx)
}
