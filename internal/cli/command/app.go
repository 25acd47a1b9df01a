// Package command is what commands of the CLI share: the state of one run, errors with an exit code, and the shapes
// that many commands have, such as lists and operations with progress.
//
// It must not know any command, nor end the process.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/connect"
	"banger/internal/cli/render"
	"banger/internal/cli/session"
	"banger/internal/host"
	"banger/internal/remote"
)

// Exit codes that any command may have.
const (
	ExitFailed = 1 // the command failed
	ExitUsage  = 2 // wrong flags or arguments
)

// App is one run of the CLI.
type App struct {
	Stdin  *os.File
	Stdout io.Writer
	Stderr io.Writer
	Quiet  bool // print no progress

	Paths  host.Paths
	Client *client.Client
	Daemon *connect.Daemon

	Context *remote.Context // the host of the daemon that commands use; nil for this one
	link    *remote.Link
}

// Reach makes the daemon of paths the one that commands use.
func (a *App) Reach(paths host.Paths) {
	a.Paths, a.Client = paths, client.New(paths.Socket())
	a.Daemon = connect.New(paths, a.Client)
}

// Contexts returns the file with the contexts of the user. It is beside the user's configuration.
func (a *App) Contexts() remote.File {
	if a.Paths.Config == "" {
		return remote.File{}
	}
	return remote.File{Path: filepath.Join(filepath.Dir(a.Paths.Config), "contexts.json")}
}

// Enter makes the daemon of another host the one that commands use. Leave ends the connection.
func (a *App) Enter(c remote.Context) {
	a.Context, a.Paths.Context = &c, c.Name
	a.link = &remote.Link{Context: c, Stderr: a.Stderr}
	a.Client = client.Over(a.link.Dial)
	a.Daemon = connect.Through(a.Paths, a.Client, c.Address, func(line string) { render.Line(a.Stderr, "banger: "+line) })
}

// Forward carries connections of ln, which it owns, to a port on 127.0.0.1 of the other host, until ctx ends. Enter has
// been called.
func (a *App) Forward(ctx context.Context, ln net.Listener, port uint16) {
	a.link.Forward(ctx, ln, port)
}

// Leave ends the connection to another host, if there is one.
func (a *App) Leave() {
	if a.link != nil {
		a.link.Close()
	}
}

// ExitError carries the exit code of a guest's command or of a usage error. A nil err prints nothing.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// UsageErrorf returns an error with the exit code of a wrong command line.
func UsageErrorf(format string, args ...any) error {
	return &ExitError{ExitUsage, fmt.Errorf(format, args...)}
}

// Unknown returns the error for a word that is not a command of c, with the nearest one that is.
func Unknown(c *cobra.Command, word string) error {
	full := func(word string) string {
		return strings.TrimPrefix(c.CommandPath()+" "+word, c.Root().Name()+" ")
	}
	hint := ""
	if near := nearest(c, word); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", full(near))
	}
	return &ExitError{ExitFailed, fmt.Errorf("there is no command %q (see: %s --help)%s", full(word), c.CommandPath(),
		hint)}
}

// Family makes c, which has commands of its own, refuse words that are none of them. Without a word it prints its help.
func Family(c *cobra.Command) *cobra.Command {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		return Unknown(c, args[0])
	}
	return c
}

// Usage wraps an argument check. Its errors end the process with code 2.
func Usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if check(cmd, args) != nil { // cobra's own words are those of a programmer
			return UsageErrorf("these arguments do not fit; write: %s (see: %s --help)", cmd.UseLine(), cmd.CommandPath())
		}
		return nil
	}
}

// Connect makes sure that a daemon answers, and starts one if necessary.
func (a *App) Connect(ctx context.Context) (*client.Client, error) { return a.Daemon.Connect(ctx) }

// DaemonRuns reports whether a daemon answers a request.
func (a *App) DaemonRuns(ctx context.Context) bool { return a.Daemon.Runs(ctx) }

// LogPath returns the path of the daemon's log.
func (a *App) LogPath() string { return a.Daemon.LogPath() }

// Say prints a line on stdout.
func (a *App) Say(line string) { render.Line(a.Stdout, line) }

// Progress returns what shows the events of one operation on stderr.
func (a *App) Progress() *render.Progress { return render.NewProgress(a.Stderr, a.Quiet) }

// Stdio returns the standard input and output of this process.
func (a *App) Stdio() session.Stdio { return session.Stdio{In: a.Stdin, Out: a.Stdout, Err: a.Stderr} }

// OnTerminal gives a command that has a terminal the size and the kind of this process's.
func (a *App) OnTerminal(e *banger.Exec) {
	if !e.TTY {
		return
	}
	e.Rows, e.Cols = render.TerminalSize(a.Stdout)
	if t := os.Getenv("TERM"); t != "" {
		e.Env = append([]string{"TERM=" + t}, e.Env...)
	}
}

// Ping returns a function that sends a VM's agent a request which the agent answers at once.
func (a *App) Ping(ref string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := a.Client.StatFile(ctx, ref, banger.FileRequest{Op: banger.FileStat, Path: []byte("/")})
		return err
	}
}

// Confirm asks the user on a terminal. Without a terminal it requires the flag that answers yes.
func (a *App) Confirm(question, flag string) error {
	if !a.Interactive() {
		return banger.Errorf(banger.CodeInvalid, "this needs a yes, and stdin is not a terminal").
			WithHint("use %s", flag)
	}
	if a.Ask(question) {
		return nil
	}
	return &ExitError{ExitFailed, errors.New("nothing was removed")}
}

// Interactive reports whether a user can be asked.
func (a *App) Interactive() bool { return render.IsTerminal(a.Stdin) && render.IsTerminal(a.Stderr) }

// Ask asks the user, who is there as Interactive says. Everything but a yes is a no.
func (a *App) Ask(question string) bool {
	fmt.Fprintf(a.Stderr, "%s [y/N] ", question)
	var answer string
	fmt.Fscanln(a.Stdin, &answer)
	return strings.HasPrefix(strings.ToLower(answer), "y")
}
