package cli

import (
	"context"
	"log/slog"
	"os"

	"banger/internal/cli/command"

	"github.com/spf13/cobra"
)

func newRecover(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "recover",
		Short: "Make the rows of VMs again whose database was lost",
		Args:  command.Usage(cobra.NoArgs),
		Long: `Make the rows of VMs again, while no daemon runs. If the database is damaged, or knows no VM, the last
good copy that knows one takes its place. Then each VM's directory without a row gets one from the
record beside it, also those that a daemon has set aside. Nothing is removed: what is replaced gets
another name. VMs that run go on.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			return a.procs.Recover(cmd.Context(), a.daemonOptions(log, func() {}), a.Stdout)
		},
	}
}

func newShim(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "shim DIR",
		Hidden: true,
		Args:   command.Usage(cobra.ExactArgs(1)),
		RunE:   func(_ *cobra.Command, args []string) error { return a.procs.Shim(context.Background(), args[0]) },
	}
}

// newVMM returns the command with which a shim starts its VMM. The process becomes the VMM's program.
func newVMM(a *app) *cobra.Command {
	return &cobra.Command{
		Use:                "vmm-exec DIR COMMAND...",
		Hidden:             true,
		Args:               command.Usage(cobra.MinimumNArgs(2)),
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, args []string) error { return a.procs.VMM(args[0], args[1:]) },
	}
}
