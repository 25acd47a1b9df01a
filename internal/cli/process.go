package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func (a *app) recoverCommand() *cobra.Command {
	return &cobra.Command{Use: "recover", Short: "Make the rows of VMs again whose database was lost", Args: usage(cobra.NoArgs),
		Long: `Make the rows of VMs again, while no daemon runs. If the database is damaged, or knows no VM, the last good copy that
knows one takes its place. Then each VM's directory without a row gets one from the record beside it, also those that
a daemon has set aside. Nothing is removed: what is replaced gets another name. VMs that run go on.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.procs.Recover(cmd.Context(), a.daemonOptions(func() {}), a.stdout)
		}}
}

func (a *app) shimCommand() *cobra.Command {
	return &cobra.Command{Use: "shim DIR", Hidden: true, Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return a.procs.Shim(context.Background(), args[0]) }}
}

// vmmCommand returns the command with which a shim starts its VMM. The process becomes the VMM's program.
func (a *app) vmmCommand() *cobra.Command {
	return &cobra.Command{Use: "vmm-exec DIR COMMAND...", Hidden: true, Args: usage(cobra.MinimumNArgs(2)), DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error { return a.procs.VMM(args[0], args[1:]) }}
}
