package cli

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"banger"
	"banger/internal/cli/background"
	"banger/internal/cli/command"
	"banger/internal/cli/session"
	"banger/internal/cli/snapshot"
)

// fromFlags are the flags of run that a VM can have that goes on from a snapshot. All else is as the snapshot has it.
var fromFlags = []string{"from", "name", "rm", "detach", "interactive", "tty", "env", "user", "workdir", "detach-keys",
	"quiet", "with-secrets"}

// runFrom makes a VM that goes on from a snapshot, and runs a command in it if there is one.
func runFrom(c *cobra.Command, a *app, o runOptions, args []string) error {
	var wrong error
	c.Flags().Visit(func(f *pflag.Flag) {
		if !slices.Contains(fromFlags, f.Name) && wrong == nil {
			wrong = banger.Errorf(banger.CodeInvalid, "--%s and --from exclude each other: the VM is as the snapshot has it",
				f.Name).WithHint("change it afterwards, such as by banger update")
		}
	})
	keys, err := session.ParseDetachKeys(o.detachKeys)
	if err = errors.Join(wrong, err); err != nil {
		return err
	}
	ctx := c.Context()
	client, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	vms, err := snapshot.Make(ctx, a.App, client,
		banger.Fork{From: o.from, Name: o.Spec.Name, Number: 1, AutoRemove: o.Spec.AutoRemove, WithSecrets: o.withSecrets})
	if err != nil {
		return err
	}
	vm := vms[0]
	a.refreshSSH(ctx)
	if o.detach || len(args) == 0 {
		a.Say(vm.ID)
		return nil
	}
	if o.Spec.AutoRemove {
		defer a.refreshSSH(ctx)
		defer a.forceRemove(vm.ID)
	}
	e := banger.Exec{Args: args, Stdin: o.interactive, TTY: o.Spec.TTY, User: o.Spec.User, Dir: o.Spec.WorkingDir,
		Env: o.Spec.Env}
	status, err := a.session(context.WithoutCancel(ctx), vm.ID, vm.Name, e, session.Attachment{Keys: keys, TTY: e.TTY})
	switch {
	case errors.Is(err, session.ErrDetached):
		return background.Left(a.App, vm.Name, func() (int, error) { return status, err })
	case errors.Is(err, session.ErrInterrupted) || err == nil && status != 0:
		return &command.ExitError{Code: status}
	}
	return err
}
