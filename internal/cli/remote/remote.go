// Package remote has the commands for contexts: other hosts whose daemons commands can use. It decides for each command
// which host's daemon that is.
//
// It must not know how a host is reached, nor what the commands do.
package remote

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/private"
	"banger/internal/remote"
)

// Variable names the context, unless the flag --context does.
const Variable = "BANGER_CONTEXT"

// New returns the family of commands for contexts.
func New(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "context",
		Short: "Use the daemons of other hosts, by ssh",
		Long: `Use the daemons of other hosts. A context is a host with banger, which your own ssh reaches: its keys, agents
and ~/.ssh/config count. All commands then work with the VMs there, and files and terminals are those of
this host. The context is that of --context, else of BANGER_CONTEXT, else the one of: banger context use.`,
		Example: `  banger context add lab ssh://me@lab.example
  banger --context lab run -it debian-bookworm
  banger context use lab`,
	}
	c.AddCommand(newAdd(a), newList(a), newUse(a), newRemove(a))
	return c
}

// held returns a RunFunc that calls f while no other process changes contexts.
func held(a *command.App, f func(args []string) error) command.RunFunc {
	return func(c *cobra.Command, args []string) error {
		release, err := a.Daemon.Hold(c.Context())
		if err != nil {
			return err
		}
		defer release()
		return f(args)
	}
}

func newAdd(a *command.App) *cobra.Command {
	var program string
	c := &cobra.Command{
		Use:   "add NAME ssh://[USER@]HOST[:PORT]",
		Short: "Add a host with banger, which ssh reaches",
		Args:  command.Usage(cobra.ExactArgs(2)),
		RunE: held(a, func(args []string) error {
			return a.Contexts().Add(remote.Context{Name: args[0], Address: args[1], Program: program})
		}),
	}
	c.Flags().StringVar(&program, "program", "", "the path of banger there, if it is not in PATH")
	return c
}

// shown is a context as ls shows it.
type shown struct {
	remote.Context
	Current bool `json:"current"`
}

func newList(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the contexts; a star marks the current one",
		Args:    command.Usage(cobra.NoArgs),
	}
	wantsJSON := command.TableOrJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		inJSON, err := wantsJSON()
		if err != nil {
			return err
		}
		list, current, err := a.Contexts().List()
		if err != nil {
			return err
		}
		if name := os.Getenv(Variable); name != "" {
			current = name
		}
		all := []shown{{remote.Context{Name: remote.Local}, current == remote.Local}}
		for _, one := range list {
			all = append(all, shown{one, current == one.Name})
		}
		if inJSON {
			return render.JSON(a.Stdout, all)
		}
		if a.Quiet {
			for _, one := range all {
				a.Say(one.Name)
			}
			return nil
		}
		t := render.NewTable(a.Stdout, "NAME", "ADDRESS", "PROGRAM")
		for _, one := range all {
			star := map[bool]string{true: " *", false: ""}[one.Current]
			t.Row(one.Name+star, orDash(one.Address), orDash(one.Program))
		}
		return t.Flush()
	}
	return c
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func newUse(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:   "use CONTEXT",
		Short: "Make a context the current one; " + remote.Local + " is this host",
		Args:  command.Usage(cobra.ExactArgs(1)),
		RunE: held(a, func(args []string) error {
			if err := a.Contexts().Use(args[0]); err != nil {
				return err
			}
			if name := os.Getenv(Variable); name != "" && name != args[0] {
				render.Line(a.Stderr, "banger: "+Variable+" is set, so "+name+" counts here")
			}
			return nil
		}),
	}
}

func newRemove(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:     "rm CONTEXT...",
		Aliases: []string{"remove"},
		Short:   "Forget contexts; nothing changes on their hosts",
		Args:    command.Usage(cobra.MinimumNArgs(1)),
		RunE: held(a, func(args []string) error {
			for _, name := range args {
				if err := a.Contexts().Remove(name); err != nil {
					return err
				}
				a.Say(name)
			}
			return nil
		}),
	}
}

// NewDialStdio returns the hidden command that ssh runs on the host of a context. It starts the daemon, and carries
// connections to it on stdin and stdout.
func NewDialStdio(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:    "dial-stdio",
		Hidden: true,
		Args:   command.Usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if _, err := a.Connect(c.Context()); err != nil {
				return err
			}
			return remote.Serve(c.Context(), a.Stdin, a.Stdout, func(ctx context.Context) (net.Conn, error) {
				conn, err := private.Dial(ctx, a.Paths.Socket())
				if err == nil {
					return conn, nil
				}
				if _, err := a.Connect(ctx); err != nil { // the daemon has ended meanwhile
					return nil, err
				}
				return private.Dial(ctx, a.Paths.Socket())
			})
		},
	}
}

// here are the commands for which no context counts: they are about this host's files, or are processes of its daemon.
var here = []string{"context", "dial-stdio", "config", "tooling", "manual", "help", "completion", "shim", "vmm-exec",
	"webui"}

// there are the commands about a host as a whole, which run on the context's host.
var there = []string{"daemon", "doctor", "system", "dns", "recover"}

// Register gives root the flag --context, which all commands obey. args are the arguments of root.
func Register(a *command.App, root *cobra.Command, args []string) {
	var flag string
	root.PersistentFlags().StringVar(&flag, "context", "", "use the daemon of this context (see: banger context)")
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return enter(a, c, flag, args) }
}

// enter makes the daemon of a context the one that c uses. flag is the value of --context. A command about a host as a
// whole runs on that host, and the returned error has its exit code.
func enter(a *command.App, c *cobra.Command, flag string, args []string) error {
	words := strings.Fields(c.CommandPath())
	top := words[min(1, len(words)-1)]
	if slices.Contains(here, top) || len(words) == 3 && top == "daemon" && words[2] == "run" {
		return nil
	}
	name := flag
	if name == "" {
		name = os.Getenv(Variable)
	}
	if name == "" {
		var err error
		if _, name, err = a.Contexts().List(); err != nil {
			return err
		}
	}
	if name == remote.Local {
		return nil
	}
	one, err := a.Contexts().Get(name)
	if err != nil {
		return err
	}
	if slices.Contains(there, top) {
		return elsewhere(c.Context(), a, one, args)
	}
	if err := byPath(c, one); err != nil {
		return err
	}
	a.Enter(one)
	return nil
}

// byPath returns an error for a command that names files of this host which the daemon itself opens.
func byPath(c *cobra.Command, one remote.Context) error {
	path := strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" ")
	if path == "image register" || path == "kernel import" {
		return banger.Errorf(banger.CodeInvalid, "%s takes files of the daemon's host, and the context %q is another one",
			path, one.Name).WithHint("copy the files there, and run the command there")
	}
	for _, arg := range c.Flags().Args() {
		for _, scheme := range []string{"oci:", "oci-archive:", "docker-archive:"} {
			if strings.HasPrefix(arg, scheme) {
				return banger.Errorf(banger.CodeInvalid, "%.200q is a file of this host, and the context %q is another one", arg,
					one.Name).WithHint("send the image there: banger image load -i FILE")
			}
		}
	}
	return nil
}

// elsewhere runs a command on the host of a context, with this process's standard streams.
func elsewhere(ctx context.Context, a *command.App, one remote.Context, args []string) error {
	for i := 0; i < len(args); i++ {
		if args[i] == "--context" || strings.HasPrefix(args[i], "--context=") {
			n := map[bool]int{true: 2, false: 1}[args[i] == "--context"]
			args = slices.Delete(slices.Clone(args), i, min(i+n, len(args)))
			break
		}
	}
	cmd, err := one.Command(ctx, a.Interactive(), append([]string{"--context", remote.Local}, args...)...)
	if err != nil {
		return err
	}
	if !a.Quiet {
		render.Line(a.Stderr, "banger: on "+one.Address)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.Stdin, a.Stdout, a.Stderr
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return &command.ExitError{Code: exit.ExitCode()}
	}
	if err != nil {
		return banger.Errorf(banger.CodeUnavailable, "cannot start ssh: %w", banger.Cause(err))
	}
	return &command.ExitError{}
}
