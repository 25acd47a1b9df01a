package cli

import (
	"banger"

	"banger/internal/cli/account"
	"banger/internal/cli/acp"
	"banger/internal/cli/agent"
	"banger/internal/cli/background"
	"banger/internal/cli/command"
	"banger/internal/cli/completion"
	"banger/internal/cli/config"
	"banger/internal/cli/diff"
	"banger/internal/cli/library"
	"banger/internal/cli/logs"
	"banger/internal/cli/manual"
	"banger/internal/cli/policy"
	"banger/internal/cli/remote"
	"banger/internal/cli/secret"
	"banger/internal/cli/snapshot"
	"banger/internal/cli/system"
	"banger/internal/cli/tooling"
	"banger/internal/cli/view"
	"banger/internal/cli/web"
	"banger/internal/cli/work"
	"banger/internal/cli/workspace"

	"github.com/spf13/cobra"
)

func newRoot(a *app) *cobra.Command {
	root := bare(a)
	root.AddGroup(
		&cobra.Group{ID: "work", Title: "Work on repositories:"},
		&cobra.Group{ID: "vm", Title: "Virtual machines:"},
		&cobra.Group{ID: "store", Title: "Images and kernels:"},
	)
	for _, c := range []*cobra.Command{
		work.New(a.App), work.NewTask(a.App), agent.New(a.App), acp.New(a.App), tooling.New(a.App), config.New(a.App),
		remote.New(a.App),
	} {
		c.GroupID = "work"
		root.AddCommand(c)
	}
	vm := &cobra.Command{Use: "vm", Short: "Work with VMs; the verbs are also at the top level", GroupID: "vm"}
	for _, verb := range vmCommands {
		c := verb(a)
		c.GroupID = "vm"
		root.AddCommand(c)
		vm.AddCommand(verb(a))
	}
	inspect := view.NewInspect(a.App, "")
	inspect.GroupID = "vm"
	root.AddCommand(inspect)
	vm.AddCommand(view.NewInspect(a.App, "vm"))
	root.AddCommand(vm)
	for _, family := range []*cobra.Command{
		library.NewImage(a.App), library.NewKernel(a.App), library.NewWarm(a.App), newNetwork(a),
	} {
		family.GroupID = "store"
		root.AddCommand(family)
	}
	for _, c := range newDockerNames(a) {
		c.GroupID = "store"
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{account.NewLogin(a.App), account.NewLogout(a.App)} {
		c.GroupID = "store"
		root.AddCommand(c)
	}
	root.AddCommand(newMissing(a)...)
	root.AddCommand(system.New(a.App, system.Host{
		ShimArgv: []string{"banger", "shim"}, Root: "/", ReloadResolver: reloadResolved, RefreshSSH: a.refreshSSH,
	}))
	root.AddCommand(web.New(a.App), web.NewProcess(a.App, a.procs.UI), remote.NewDialStdio(a.App))
	for _, other := range []func(*app) *cobra.Command{
		newEvents, newDNS, newDaemon, newRecover, newDoctor, newVersion, newShim, newVMM, newSSHConfig, newSSHProxy,
		of(workspace.NewRemote),
	} {
		root.AddCommand(other(a))
	}
	root.AddCommand(manual.New())
	refuseUnknownWords(root)
	command.PlainHelp(root)
	completion.Register(a.App, root)
	return root
}

// bare returns the command without the commands below it.
func bare(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "banger",
		Short: "Run any OCI image in its own microVM",
		Example: `  banger run debian-bookworm                      a shell in a new VM
  banger run --rm debian-bookworm -- uname -a     one command, nothing left
  banger run -d --name web IMAGE; banger exec -it web sh`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       banger.Version,
	}
	root.SetVersionTemplate("banger {{.Version}}\n")
	root.SetHelpCommand(newHelp(a))
	root.SetFlagErrorFunc(flagError)
	root.PersistentFlags().BoolVarP(&a.Quiet, "quiet", "q", false, "print no progress; with lists, print ids only")
	return root
}

// refuseUnknownWords makes every command that only has commands of its own refuse other words.
func refuseUnknownWords(c *cobra.Command) {
	if c.HasSubCommands() && !c.Runnable() {
		command.Family(c)
	}
	for _, sub := range c.Commands() {
		refuseUnknownWords(sub)
	}
}

// vmCommands lists every verb of a VM once.
var vmCommands = []func(*app) *cobra.Command{
	newRun, newCreate, newStart, newStop, newRestart, newPause, newSuspend, newResume, newKill, newRemove,
	of(view.NewList), of(background.New), of(background.NewAttach), newExec, newSSH, of(logs.New), of(view.NewStats),
	of(view.NewTop), newRename, newUpdate, newCopy, newPorts, newPort, of(policy.New), newCommit, newWait, newPrune,
	of(snapshot.New), of(snapshot.NewFork), of(snapshot.NewKeep), of(diff.New), of(workspace.New), of(secret.New),
}

// of makes a command of another package one of this program's.
func of(make func(*command.App) *cobra.Command) func(*app) *cobra.Command {
	return func(a *app) *cobra.Command { return make(a.App) }
}
