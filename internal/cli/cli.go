// Package cli is what a person types: it has one file per command or family of commands, and the only place where
// errors become exit codes. It talks to the daemon through package api/client alone.
//
// The packages below it do what is not specific to a command: connect finds the daemon, spec reads descriptions of
// VMs, render prints, session joins streams with the terminal, filecopy copies files, sshfiles keeps files for
// OpenSSH, and doctor checks the host. It must not know how a VM is run.
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/cli/remote"
	"banger/internal/cli/render"
	"banger/internal/cli/web"
	"banger/internal/host"
)

// Exit codes of run and exec, as docker, env and shells use them.
const (
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
	// UI runs the process of the web UI. It calls ready once that answers.
	UI web.Serve
}

// app is one run of the CLI, with the other programs that it can become.
type app struct {
	*command.App
	procs Processes
}

// gitRemote is the name under which git starts this program for addresses that begin with banger://
// (gitremote-helpers(7)).
const gitRemote = "git-remote-banger"

// Arguments returns the command line of argv, the arguments of a process and first its name. git-remote-banger is a
// command, also where a file of that name is this program.
func Arguments(argv []string) []string {
	if len(argv) > 0 && filepath.Base(argv[0]) == gitRemote {
		return append([]string{gitRemote}, argv[1:]...)
	}
	return argv[min(1, len(argv)):]
}

// Main runs one command line and returns the exit code.
func Main(args []string, procs Processes) int {
	a := &app{App: &command.App{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}, procs: procs}
	paths, err := host.FindPaths()
	if len(args) > 0 && slices.Contains([]string{"shim", "vmm-exec"}, args[0]) {
		// The processes of a VM get their directories as arguments, and may have no home directory.
		err = nil
	} else if err == nil {
		err = host.KeepMemory()
	}
	if err != nil {
		return a.exitCode(err)
	}
	a.Reach(paths)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return a.run(ctx, args)
}

// run runs the command that args name and returns its exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := newRoot(a)
	root.SetArgs(copied(args))
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	remote.Register(a.App, root, args)
	defer a.Leave()
	return a.exitCode(root.ExecuteContext(ctx))
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
	code, shown := command.ExitFailed, err
	if e, ok := errors.AsType[*command.ExitError](err); ok {
		code, shown = e.Code, e.Err
	}
	if shown != nil {
		render.Error(a.Stderr, shown)
	}
	return code
}

// runCode gives an error of run or exec the code that docker users expect.
func runCode(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*command.ExitError](err); ok {
		return e
	}
	switch banger.CodeOf(err) {
	case banger.CodeCannotRun:
		return &command.ExitError{Code: exitCannotRun, Err: err}
	case banger.CodeCommandAbsent:
		return &command.ExitError{Code: exitCommandAbsent, Err: err}
	}
	return &command.ExitError{Code: exitBanger, Err: err}
}
