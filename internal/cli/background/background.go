// Package background has the commands for sessions: commands in a VM that outlive their clients.
//
// It must not know how a session is kept in the guest.
package background

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/logs"
	"banger/internal/cli/render"
	"banger/internal/cli/secret"
	"banger/internal/cli/session"
	"banger/internal/cli/spec"
	"banger/internal/cli/workspace"
	"banger/internal/notation"
	"banger/internal/text"
)

// New returns the command session with its commands.
func New(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "session",
		Short: "Run commands in a VM that outlive you",
		Long: `Run commands in a VM that outlive you. A session goes on when its clients leave, when the daemon ends, and when
the VM is suspended and resumed. Its output, its exit code and its times stay until it is removed.`,
		Example: `  banger session start web --name build -- make all
  banger session attach web build
  banger session wait web build`,
	}
	c.AddCommand(newStart(a), newList(a), newInspect(a), newAttach(a), logs.NewOfSession(a), newSend(a), newSignal(a),
		newStop(a), newWait(a), newRemove(a), newEvents(a))
	return c
}

func newStart(a *command.App) *cobra.Command {
	var o Start
	c := &cobra.Command{
		Use:   "start [flags] VM [--] COMMAND...",
		Short: "Start a session and print its name",
		Example: `  banger session start web --name logs -- journalctl -f
  banger session start -t --restart always web -- top`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 1 && args[1] == "--" {
				args = append(args[:1:1], args[2:]...)
			}
			if len(args) < 2 {
				return command.UsageErrorf("session start needs a VM and a command (see: banger session start --help)")
			}
			o.Command.Exec.Stdin = true
			return o.Run(c.Context(), a, args[0], args[1:])
		},
	}
	fs := c.Flags()
	fs.SetInterspersed(false)
	fs.StringVar(&o.Name, "name", "", "name of the session; default: made of the command")
	o.Command.Register(fs)
	o.Secrets.Register(fs)
	o.Ready.Register(fs)
	fs.BoolVar(&o.Prepare, "auto-prepare", false, "first bring what has changed on this host into the VM's workspaces")
	fs.StringVar(&o.Restart, "restart", banger.RestartNo,
		"no, on-failure[:N] or always, also at the VM's next start")
	return c
}

// Start is what a user wants of a new session.
type Start struct {
	Name    string
	Command spec.Command
	Secrets spec.Secrets
	Restart string
	Ready   spec.Ready
	Prepare bool // first bring what has changed on this host into the VM's workspaces
}

// Run starts the session and prints its name.
func (o Start) Run(ctx context.Context, a *command.App, vm string, args []string) error {
	s := banger.SessionSpec{Name: o.Name}
	var err error
	if s.Command, err = o.Command.Resolve(args); err != nil {
		return err
	}
	if o.Restart != "" {
		if s.Restart, err = notation.Restart(o.Restart); err != nil {
			return err
		}
	}
	if s.Ready, _, err = o.Ready.Resolve(); err != nil {
		return err
	}
	given, err := o.Secrets.Read(a.Stdin, true) // a session has a stdin of its own
	if err != nil {
		return err
	}
	s.Command.Secrets = given.Env
	a.OnTerminal(&s.Command)
	if err := s.Check(); err != nil {
		return err
	}
	client, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	if err := workspace.Enter(ctx, a, client, vm, o.Prepare); err != nil {
		return err
	}
	if err := secret.Give(ctx, client, vm, given); err != nil {
		return err
	}
	started, err := client.StartSession(ctx, vm, s)
	if err != nil {
		return err
	}
	a.Say(started.Name)
	if o.Ready.Waits() {
		_, err = client.ReadySession(ctx, vm, started.Name, o.Ready.Within)
	}
	return err
}

func newList(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:     "ls VM",
		Aliases: []string{"list", "ps"},
		Short:   "List the sessions of a VM",
		Args:    command.Usage(cobra.ExactArgs(1)),
	}
	return command.Lists(a, c, command.Listing[banger.Session]{
		Get: func(ctx context.Context, client *client.Client, args []string) ([]banger.Session, error) {
			return client.Sessions(ctx, args[0])
		},
		Name: func(s banger.Session) string { return s.Name },
		Head: []string{"NAME", "STATE", "RESTARTS", "COMMAND", "OUTPUT", "CREATED"},
		Row: func(s banger.Session) []string {
			return []string{s.Name, text.Limit(state(s), 60), strconv.Itoa(s.Restarts),
				text.Limit(strings.Join(s.Command.Args, " "), 40), output(s), render.Age(s.Created)}
		},
	})
}

// state returns the state of a session with its time, and with what there is to say about the latest end.
func state(s banger.Session) string {
	var words string
	switch {
	case s.State == banger.SessionRunning:
		words = "running, " + render.Since(s.Started) + render.Readiness(s.Readiness)
	case s.State == banger.SessionEnded && s.Exit != nil:
		words = fmt.Sprintf("ended (%d), %s", s.Exit.Status(), render.Age(s.Ended))
	default:
		words = s.State
	}
	if s.Reason != "" {
		words += ": " + s.Reason
	}
	return words
}

// output returns how much a session has written, and how much of that is gone: old output, and what the disk had no
// room for.
func output(s banger.Session) string {
	words := banger.FormatSize(int64(s.End))
	if gone := min(s.First+s.Lost, s.End); gone > 0 {
		words += ", " + banger.FormatSize(int64(gone)) + " gone"
	}
	return words
}

func newInspect(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "inspect VM SESSION...",
		Short: "Show all about sessions as JSON",
		Args:  command.Usage(cobra.MinimumNArgs(2)),
	}
	var vm string
	command.Inspects(a, c, nil, func(ctx context.Context, client *client.Client, name string) (banger.Session, error) {
		return client.Session(ctx, vm, name)
	})
	inspect := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		vm = args[0]
		return inspect(c, args[1:])
	}
	return c
}

func newAttach(a *command.App) *cobra.Command {
	var readOnly bool
	var keys string
	c := &cobra.Command{
		Use:   "attach [flags] VM SESSION",
		Short: "Connect your terminal with a session",
		Long: `Connect your terminal, or stdin and stdout, with a session. The screen of a session with a terminal is drawn
again first. Several clients may be attached; a terminal has the size of the one that typed last. The session goes on
when you leave it by the detach keys, or when your terminal closes. The exit code is that of the session's command.`,
		Args: command.Usage(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			leave, err := session.ParseDetachKeys(keys)
			if err != nil {
				return err
			}
			client, err := a.Connect(c.Context())
			if err != nil {
				return err
			}
			s, err := client.Session(c.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return Attach(context.WithoutCancel(c.Context()), a, args[0], s,
				session.Attachment{Keys: leave, ReadOnly: readOnly, TTY: s.Command.TTY}, nil)
		},
	}
	c.Flags().BoolVar(&readOnly, "read-only", false, "only watch; Ctrl-C leaves")
	c.Flags().StringVar(&keys, "detach-keys", session.DefaultDetachKeys, KeysUsage)
	return c
}

// Attach connects this process with a session until one of them ends. Without a terminal, output comes from position
// on; nil means what is written from now on.
func Attach(ctx context.Context, a *command.App, vm string, s banger.Session, how session.Attachment,
	position *uint64) error {
	view := banger.SessionView{ReadOnly: how.ReadOnly, Screen: s.Command.TTY}
	if !s.Command.TTY {
		view.Position = position
	} else {
		view.Rows, view.Cols = render.TerminalSize(a.Stdout)
	}
	conn, err := a.Client.AttachSession(ctx, vm, s.Name, view)
	if err != nil {
		return err
	}
	return Left(a, s.Name, func() (int, error) { return session.Attach(ctx, conn, a.Stdio(), how, vm, a.Ping(vm)) })
}

// Left runs an attached client of a command that outlives it, and turns its end into an error with an exit code. what
// names the command.
func Left(a *command.App, what string, run func() (int, error)) error {
	status, err := run()
	switch {
	case errors.Is(err, session.ErrDetached):
		if !a.Quiet {
			fmt.Fprintf(a.Stderr, "banger: detached; %s goes on\n", what)
		}
		return nil
	case errors.Is(err, session.ErrInterrupted) || err == nil && status != 0:
		return &command.ExitError{Code: status}
	}
	return err
}

func newSend(a *command.App) *cobra.Command {
	var eof bool
	c := &cobra.Command{
		Use:   "send [flags] VM SESSION [TEXT...]",
		Short: "Give a session's command stdin: a line of text, or all of this command's stdin",
		Example: `  banger session send web shell 'make test'
  banger session send --eof web unpack <data.tar`,
		Args: command.Usage(cobra.MinimumNArgs(2)),
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
			var input io.Reader = a.Stdin
			if len(args) > 2 {
				input = strings.NewReader(strings.Join(args[2:], " ") + "\n")
			}
			_, err := client.SendSession(ctx, args[0], args[1], eof, input)
			return err
		}),
	}
	c.Flags().SetInterspersed(false)
	c.Flags().BoolVar(&eof, "eof", false, "the command's stdin then ends")
	return c
}

func newSignal(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:   "signal VM SESSION [SIGNAL]",
		Short: "Signal a session's command and its process group; by default with TERM",
		Args:  command.Usage(cobra.RangeArgs(2, 3)),
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
			signal := 15
			if len(args) == 3 {
				var err error
				if signal, err = banger.ParseSignal(args[2]); err != nil {
					return err
				}
			}
			_, err := client.SignalSession(ctx, args[0], args[1], signal)
			return err
		}),
	}
}

func newStop(a *command.App) *cobra.Command {
	var seconds int
	c := &cobra.Command{
		Use:   "stop [flags] VM SESSION...",
		Short: "End sessions for good: by TERM, or HUP with a terminal, and later by KILL",
		Args:  command.Usage(cobra.MinimumNArgs(2)),
	}
	c.Flags().IntVarP(&seconds, "time", "t", 10, "seconds until the command is killed")
	c.RunE = each(a, func(ctx context.Context, client *client.Client, vm, name string) (string, error) {
		_, err := client.StopSession(ctx, vm, name, time.Duration(seconds)*time.Second)
		return name, err
	})
	return c
}

// each returns a RunE for arguments that are a VM and sessions.
func each(a *command.App,
	do func(ctx context.Context, client *client.Client, vm, name string) (string, error)) command.RunFunc {
	return a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
		return a.Each(args[1:], func(_ int, name string) (string, error) { return do(ctx, client, args[0], name) })
	})
}

func newWait(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:   "wait VM SESSION...",
		Short: "Wait until sessions have ended and print their exit codes",
		Args:  command.Usage(cobra.MinimumNArgs(2)),
		RunE: each(a, func(ctx context.Context, client *client.Client, vm, name string) (string, error) {
			s, err := client.WaitSession(ctx, vm, name)
			if err == nil && s.Exit == nil {
				err = banger.Errorf(banger.CodeGuest, "how the session %s has ended is not known: %s", name, s.Reason)
			}
			if err != nil {
				return "", err
			}
			return strconv.Itoa(s.Exit.Status()), nil
		}),
	}
}

func newRemove(a *command.App) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:     "rm [flags] VM SESSION...",
		Aliases: []string{"remove"},
		Short:   "Remove sessions that have ended, with their output and what they have left behind",
		Args:    command.Usage(cobra.MinimumNArgs(2)),
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "end those that run first")
	c.RunE = each(a, func(ctx context.Context, client *client.Client, vm, name string) (string, error) {
		return name, client.RemoveSession(ctx, vm, name, force)
	})
	return c
}
