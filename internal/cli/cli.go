// Package cli is what a person types and reads. It has one file per command or family, the printing, and the only
// place where errors become exit codes. It talks to the daemon through package api alone and must not know how a VM
// is run.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api"
	"banger/internal/host"
)

// Exit codes, as docker, env and shells use them.
const (
	exitFailed        = 1   // any command but run and exec
	exitUsage         = 2   // wrong flags or arguments
	exitBanger        = 125 // run, exec: banger itself failed
	exitCannotRun     = 126 // run, exec: the command cannot be executed
	exitCommandAbsent = 127 // run, exec: the command does not exist
)

// Processes are the other programs that this binary can run as.
type Processes struct {
	Daemon func(context.Context, DaemonOptions) error
	// Recover rebuilds the rows of VMs and reports on w.
	Recover func(ctx context.Context, o DaemonOptions, w io.Writer) error
	Shim    func(ctx context.Context, dir string) error
	VMM     func(dir string, argv []string) error // does not return on success
}

// app is one run of the CLI.
type app struct {
	stdin          *os.File
	stdout, stderr io.Writer
	procs          Processes
	paths          host.Paths
	client         *api.Client
	daemonState    string // the state directory of the daemon that answered; "" before any answer
	quiet          bool
}

// exitError carries the exit code of a guest's command or of a usage error. A nil err prints nothing.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// Main runs one command line and returns the exit code.
func Main(args []string, procs Processes) int {
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, procs: procs}
	paths, err := host.FindPaths()
	if len(args) > 0 && slices.Contains([]string{"shim", "vmm-exec"}, args[0]) {
		// The processes of a VM get their directories as arguments, and may have no home directory.
		err = nil
	} else if err == nil {
		err = host.KeepMemory()
	}
	if err == nil {
		a.paths, a.client = paths, api.NewClient(paths.Socket())
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		root := a.root()
		root.SetArgs(copied(args))
		root.SetOut(a.stdout)
		root.SetErr(a.stderr)
		err = root.ExecuteContext(ctx)
	}
	return a.exitCode(err)
}

// copied returns a copy of args in other memory. host.HideArgument then changes only what the kernel shows.
func copied(args []string) []string {
	list := make([]string, len(args))
	for i, a := range args {
		list[i] = strings.Clone(a)
	}
	return list
}

// exitCode prints err and returns its exit code. No other function turns an error into an exit code.
func (a *app) exitCode(err error) int {
	if err == nil {
		return 0
	}
	code, shown := exitFailed, err
	if e, ok := errors.AsType[*exitError](err); ok {
		code, shown = e.code, e.err
	}
	if shown != nil {
		a.complain(shown)
	}
	return code
}

// runCode gives an error of run or exec the code that docker users expect.
func runCode(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e
	}
	switch banger.CodeOf(err) {
	case banger.CodeCannotRun:
		return &exitError{exitCannotRun, err}
	case banger.CodeCommandAbsent:
		return &exitError{exitCommandAbsent, err}
	}
	return &exitError{exitBanger, err}
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "banger",
		Short: "Run any OCI image in its own microVM",
		Example: `  banger run debian-bookworm                      a shell in a new VM
  banger run --rm debian-bookworm -- uname -a     one command, nothing left
  banger run -d --name web IMAGE; banger exec -it web sh`,
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return &exitError{exitUsage, fmt.Errorf("there is no command %q (see: banger --help)%s", args[0], suggest(cmd, args[0]))}
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		code := exitUsage
		if name := cmd.Name(); name == "run" || name == "exec" { // 2 could be the exit code of the command in the VM
			code = exitBanger
		}
		return &exitError{code, fmt.Errorf("%w (see: %s --help)", err, cmd.CommandPath())}
	})
	root.PersistentFlags().BoolVarP(&a.quiet, "quiet", "q", false, "print no progress; with lists, print ids only")
	root.AddGroup(&cobra.Group{ID: "vm", Title: "Virtual machines:"}, &cobra.Group{ID: "store", Title: "Images and kernels:"})
	vm := &cobra.Command{Use: "vm", Short: "Work with VMs; the verbs are also at the top level", GroupID: "vm"}
	for _, make := range a.vmCommands() {
		root.AddCommand(inGroup(make(), "vm"))
		vm.AddCommand(make())
	}
	root.AddCommand(vm, inGroup(a.imageCommand(), "store"), inGroup(a.kernelCommand(), "store"),
		inGroup(a.networkCommand(), "store"), a.dnsCommand(),
		newDaemon(a), a.recoverCommand(), a.doctorCommand(), a.versionCommand(), a.shimCommand(), a.vmmCommand(),
		a.sshConfigCommand(), a.sshProxyCommand())
	return root
}

func inGroup(c *cobra.Command, id string) *cobra.Command {
	c.GroupID = id
	return c
}

func suggest(cmd *cobra.Command, word string) string {
	cmd.SuggestionsMinimumDistance = 2
	if s := cmd.SuggestionsFor(word); len(s) > 0 {
		return fmt.Sprintf("; did you mean %q?", s[0])
	}
	return ""
}

// vmCommands lists every verb of a VM once.
func (a *app) vmCommands() []func() *cobra.Command {
	return []func() *cobra.Command{
		a.runCommand, a.createCommand, a.startCommand, a.stopCommand, a.restartCommand, a.killCommand, a.rmCommand,
		a.psCommand, a.inspectCommand, a.execCommand, a.sshCommand, a.logsCommand, a.statsCommand, a.renameCommand,
		a.cpCommand, a.portsCommand, a.portCommand, a.policyCommand,
		a.commitCommand, a.waitCommand, a.pruneCommand,
	}
}

// usage wraps an argument check. Its errors end the process with code 2.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &exitError{exitUsage, fmt.Errorf("%w (see: %s --help)", err, cmd.CommandPath())}
		}
		return nil
	}
}
