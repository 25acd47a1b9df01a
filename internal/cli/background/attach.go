package background

import (
	"context"

	"github.com/spf13/cobra"

	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/cli/session"
)

// KeysUsage describes the flag --detach-keys.
const KeysUsage = "keys that leave the command running; empty: none"

// NewAttach returns the command attach, which is for the main command of a VM.
func NewAttach(a *command.App) *cobra.Command {
	var readOnly, noStdin bool
	var keys string
	c := &cobra.Command{
		Use:   "attach [flags] VM",
		Short: "Connect your terminal with a VM's main command",
		Long: `Connect your terminal, or stdin and stdout, with the main command of a VM. It gets stdin if it has a terminal,
or if the VM was made with --interactive. The command goes on when you leave it by the detach keys, or when your
terminal closes; Ctrl-C reaches it. The exit code is that of the command.`,
		Args: command.Usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			leave, err := session.ParseDetachKeys(keys)
			if err != nil {
				return err
			}
			how := session.Attachment{Keys: leave, ReadOnly: readOnly || noStdin, Main: true}
			return attachMain(context.WithoutCancel(c.Context()), a, args[0], how)
		},
	}
	c.Flags().BoolVar(&readOnly, "read-only", false, "only watch; Ctrl-C leaves")
	c.Flags().BoolVar(&noStdin, "no-stdin", false, "the same, as docker calls it")
	c.Flags().StringVar(&keys, "detach-keys", session.DefaultDetachKeys, KeysUsage)
	return c
}

// attachMain connects this process with a VM's main command until one of them ends.
func attachMain(ctx context.Context, a *command.App, ref string, how session.Attachment) error {
	client, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	vm, err := client.Get(ctx, ref)
	if err != nil {
		return err
	}
	how.TTY = vm.Spec.TTY
	var rows, cols uint16
	if how.TTY && !how.ReadOnly {
		rows, cols = render.TerminalSize(a.Stdout)
	}
	conn, err := client.Attach(ctx, vm.ID, rows, cols)
	if err != nil {
		return err
	}
	return Left(a, vm.Name, func() (int, error) {
		return session.Attach(ctx, conn, a.Stdio(), how, vm.Name, a.Ping(vm.ID))
	})
}
