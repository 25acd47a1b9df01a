// Package system has the commands for all of banger at once: what it takes of the disk, and how that is given back, up
// to its last file.
//
// It must not know how a VM is run, nor the commands for one VM or one image.
package system

import (
	"context"

	"github.com/spf13/cobra"

	"banger/internal/cli/command"
	"banger/internal/reset"
)

// Host is what the commands use of the host outside of banger's directories.
type Host struct {
	ShimArgv []string // the command that starts a shim
	Root     string   // of the host's files; "/" except in tests
	// ReloadResolver makes the host's resolver read its configuration again.
	ReloadResolver func(context.Context) error
	// RefreshSSH updates an installed configuration of ssh.
	RefreshSSH func(context.Context)
}

// group is the state that the commands share.
type group struct {
	*command.App
	host Host
}

func (g *group) home() reset.Home {
	return reset.Home{State: g.Paths.State, Run: g.Paths.Run, ShimArgv: g.host.ShimArgv}
}

// New returns the family of commands.
func New(a *command.App, host Host) *cobra.Command {
	g := &group{a, host}
	c := &cobra.Command{Use: "system", Short: "All of banger: the room it takes, and its removal"}
	c.AddCommand(newUsage(g), newPrune(g), newReset(g), newUninstall(g))
	return c
}
