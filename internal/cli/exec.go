package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/cli/background"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/cli/secret"
	"banger/internal/cli/session"
	"banger/internal/cli/spec"
	"banger/internal/cli/workspace"
)

// execOptions are the flags of exec.
type execOptions struct {
	command spec.Command
	secrets spec.Secrets
	detach  bool
	prepare bool
}

func newExec(a *app) *cobra.Command {
	var o execOptions
	c := &cobra.Command{
		Use:   "exec [flags] VM [--] COMMAND...",
		Short: "Run a command in a running VM",
		Example: `  banger exec -it web bash
  tar c . | banger exec -i web -- tar x -C /srv
  banger exec -d web make    # a session: see banger session --help`,
		RunE: func(c *cobra.Command, args []string) error {
			return runCode(runExec(c.Context(), a, o, args))
		},
	}
	fs := c.Flags()
	fs.SetInterspersed(false)
	o.command.Register(fs)
	o.secrets.Register(fs)
	fs.BoolVarP(&o.command.Exec.Stdin, "interactive", "i", false, "pass stdin to the command")
	fs.BoolVarP(&o.detach, "detach", "d", false, "start a session, print its name and leave it running")
	fs.BoolVar(&o.prepare, "auto-prepare", false, "first bring what has changed on this host into the VM's workspaces")
	return c
}

func runExec(ctx context.Context, a *app, o execOptions, args []string) error {
	if len(args) > 1 && args[1] == "--" {
		args = append(args[:1:1], args[2:]...)
	}
	if len(args) < 2 {
		return banger.Errorf(banger.CodeInvalid, "exec needs a VM and a command").WithHint("see: banger exec --help")
	}
	if o.detach {
		return background.Start{Command: o.command, Secrets: o.secrets, Prepare: o.prepare}.Run(ctx, a.App, args[0], args[1:])
	}
	e, err := o.command.Resolve(args[1:])
	if err != nil {
		return err
	}
	given, err := o.secrets.Read(freeStdin(a, e.Stdin), true)
	if err != nil {
		return err
	}
	e.Secrets = given.Env
	if e.TTY && e.Stdin && !render.IsTerminal(a.Stdin) {
		return banger.Errorf(banger.CodeInvalid, "stdin is not a terminal").WithHint("leave out -t")
	}
	client, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	if err := workspace.Enter(ctx, a.App, client, args[0], o.prepare); err != nil {
		return err
	}
	if err := secret.Give(ctx, client, args[0], given); err != nil {
		return err
	}
	status, err := a.session(context.WithoutCancel(ctx), args[0], args[0], e, session.Attachment{})
	if errors.Is(err, session.ErrInterrupted) || err == nil && status != 0 {
		return &command.ExitError{Code: status}
	}
	return err
}
