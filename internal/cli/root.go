package cli

import (
	"fmt"

	"banger/internal/cli/command"
	"banger/internal/cli/library"

	"github.com/spf13/cobra"
)

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "banger",
		Short: "Run any OCI image in its own microVM",
		Example: `  banger run debian-bookworm                      a shell in a new VM
  banger run --rm debian-bookworm -- uname -a     one command, nothing left
  banger run -d --name web IMAGE; banger exec -it web sh`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return command.UsageErrorf("there is no command %q (see: banger --help)%s", args[0], suggest(cmd, args[0]))
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		code := command.ExitUsage
		if name := cmd.Name(); name == "run" || name == "exec" { // 2 could be the exit code of the command in the VM
			code = exitBanger
		}
		return &command.ExitError{Code: code, Err: fmt.Errorf("%w (see: %s --help)", err, cmd.CommandPath())}
	})
	root.PersistentFlags().BoolVarP(&a.Quiet, "quiet", "q", false, "print no progress; with lists, print ids only")
	root.AddGroup(
		&cobra.Group{ID: "vm", Title: "Virtual machines:"},
		&cobra.Group{ID: "store", Title: "Images and kernels:"},
	)
	vm := &cobra.Command{Use: "vm", Short: "Work with VMs; the verbs are also at the top level", GroupID: "vm"}
	for _, verb := range vmCommands {
		c := verb(a)
		c.GroupID = "vm"
		root.AddCommand(c)
		vm.AddCommand(verb(a))
	}
	root.AddCommand(vm)
	for _, family := range []*cobra.Command{library.NewImage(a.App), library.NewKernel(a.App), newNetwork(a)} {
		family.GroupID = "store"
		root.AddCommand(family)
	}
	for _, other := range []func(*app) *cobra.Command{
		newDNS, newDaemon, newRecover, newDoctor, newVersion, newShim, newVMM, newSSHConfig, newSSHProxy,
	} {
		root.AddCommand(other(a))
	}
	return root
}

// vmCommands lists every verb of a VM once.
var vmCommands = []func(*app) *cobra.Command{
	newRun, newCreate, newStart, newStop, newRestart, newKill, newRemove, newList, newInspect, newExec, newSSH, newLogs,
	newStats, newRename, newCopy, newPorts, newPort, newPolicy, newCommit, newWait, newPrune,
}

func suggest(cmd *cobra.Command, word string) string {
	cmd.SuggestionsMinimumDistance = 2
	if s := cmd.SuggestionsFor(word); len(s) > 0 {
		return fmt.Sprintf("; did you mean %q?", s[0])
	}
	return ""
}
