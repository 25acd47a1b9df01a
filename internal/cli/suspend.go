package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
)

func newPause(a *app) *cobra.Command {
	return newVerb(a, "pause", "Stop the CPUs of VMs; their memory stays where it is",
		func(ctx context.Context, client *client.Client, ref string, _ banger.Emit) error {
			_, err := client.Pause(ctx, ref)
			return err
		})
}

func newSuspend(a *app) *cobra.Command {
	var with bool
	c := newVerb(a, "suspend", "Write VMs to disk, with all that runs in them, and end their processes on this host",
		func(ctx context.Context, client *client.Client, ref string, _ banger.Emit) error {
			_, err := client.Suspend(ctx, ref, with)
			return err
		})
	c.Long = c.Short + `.

A suspended VM needs no memory and no CPU. It goes on by "banger resume", "banger start", or when it is used: by exec,
ssh or cp, by a connection to one of its published ports or to its own address, or, on a bridge, by a DNS question for
its name. While no daemon runs, connections are refused. Its processes, open files and listeners are as they were. Its
connections to the outside end, and so do commands that belong to a client; the VM's main command goes on.`
	command.WithSecrets(c.Flags(), &with)
	lives := func(vm banger.VM) bool { return vm.State.Lives() }
	return withAll(a, c, "all VMs that run", lives)
}

func newResume(a *app) *cobra.Command {
	c := newVerb(a, "resume", "Let paused and suspended VMs go on",
		func(ctx context.Context, client *client.Client, ref string, emit banger.Emit) error {
			_, err := client.Resume(ctx, ref, emit)
			return err
		})
	c.Aliases = []string{"unpause"} // docker's word
	return withAll(a, c, "all VMs that are paused or suspended", func(vm banger.VM) bool {
		return vm.State == banger.StatePaused || vm.State == banger.StateSuspended
	})
}
