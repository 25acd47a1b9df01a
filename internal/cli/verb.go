package cli

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
)

// newVerb returns a command that does one thing to each VM that it names. f gets what shows the progress of the VM.
func newVerb(a *app, use, short string,
	f func(ctx context.Context, client *client.Client, ref string, emit banger.Emit) error) *cobra.Command {
	return &cobra.Command{
		Use:   use + " VM...",
		Short: short,
		Args:  command.Usage(cobra.MinimumNArgs(1)),
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, refs []string) error {
			emit, end := a.progressOf(refs)
			defer end()
			return a.Each(refs, func(i int, ref string) (string, error) { return ref, f(ctx, client, ref, emit(i)) })
		}),
	}
}

// withAll gives a verb the flag --all, for all VMs for which suits is true.
func withAll(a *app, c *cobra.Command, about string, suits func(banger.VM) bool) *cobra.Command {
	all := c.Flags().Bool("all", false, about)
	named, run := c.Args, c.RunE
	c.Args = func(c *cobra.Command, args []string) error {
		if !*all {
			return named(c, args)
		}
		if len(args) > 0 {
			return command.UsageErrorf("--all is for all VMs, and takes no names (see: %s --help)", c.CommandPath())
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if !*all {
			return run(c, args)
		}
		client, err := a.Connect(c.Context())
		if err != nil {
			return err
		}
		list, err := client.List(c.Context(), true, nil)
		if err != nil {
			return err
		}
		for _, vm := range list {
			if suits(vm) {
				args = append(args, vm.Name)
			}
		}
		if len(args) == 0 {
			return nil
		}
		return run(c, args)
	}
	return c
}

// progressOf returns what shows the events of operations on each of refs at the same time.
func (a *app) progressOf(refs []string) (emit func(i int) banger.Emit, end func()) {
	if len(refs) == 1 {
		p := a.Progress()
		return func(int) banger.Emit { return p.Emit }, p.Close
	}
	g := render.NewGroup(a.Stderr, a.Quiet, refs)
	return g.Emit, g.Close
}

func newStart(a *app) *cobra.Command {
	var cold bool
	c := newVerb(a, "start", "Boot VMs that are stopped, and let suspended ones go on",
		func(ctx context.Context, client *client.Client, ref string, emit banger.Emit) error {
			if vm, err := client.Get(ctx, ref); err == nil && vm.State == banger.StateRunning {
				return nil // as in docker
			}
			_, err := client.Start(ctx, ref, false, cold, emit)
			return err
		})
	c.Flags().BoolVar(&cold, "cold", false, "boot suspended VMs from their disks; what they had in memory is lost")
	return withAll(a, c, "all VMs that do not run", func(vm banger.VM) bool { return vm.State.AtRest() })
}

func newStop(a *app) *cobra.Command {
	var grace func() time.Duration
	c := newVerb(a, "stop", "Shut VMs down cleanly",
		func(ctx context.Context, client *client.Client, ref string, _ banger.Emit) error {
			_, err := client.Stop(ctx, ref, grace())
			return err
		})
	grace = graceFlag(c)
	return withAll(a, c, "all VMs that run", func(vm banger.VM) bool { return !vm.State.AtRest() })
}

func newRestart(a *app) *cobra.Command {
	var grace func() time.Duration
	c := newVerb(a, "restart", "Stop VMs and boot them again",
		func(ctx context.Context, client *client.Client, ref string, emit banger.Emit) error {
			_, err := client.Restart(ctx, ref, grace(), emit)
			return err
		})
	grace = graceFlag(c)
	return c
}

// graceFlag adds the flag --time to c and returns the time that it says.
func graceFlag(c *cobra.Command) func() time.Duration {
	seconds := c.Flags().IntP("time", "t", -1, "seconds that programs get before they are killed; -1: those of "+
		"run --stop-timeout, or 10")
	return func() time.Duration { return time.Duration(*seconds) * time.Second }
}

func newKill(a *app) *cobra.Command {
	var name string
	c := newVerb(a, "kill", "End VMs at once, or signal their main command",
		func(ctx context.Context, client *client.Client, ref string, _ banger.Emit) error {
			sig, err := banger.ParseSignal(name)
			if err != nil {
				return err
			}
			_, err = client.Kill(ctx, ref, sig)
			return err
		})
	c.Flags().StringVarP(&name, "signal", "s", "KILL", "signal for the main command; KILL ends the VM")
	return c
}

func newRemove(a *app) *cobra.Command {
	var force bool
	c := newVerb(a, "rm", "Remove VMs and their disks",
		func(ctx context.Context, client *client.Client, ref string, _ banger.Emit) error {
			err := client.Remove(ctx, ref, force)
			if force && banger.CodeOf(err) == banger.CodeNotFound {
				return nil // as in docker
			}
			return err
		})
	remove := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		defer a.refreshSSH(c.Context())
		return remove(c, args)
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "kill VMs that run; a VM that does not exist is no error")
	return withAll(a, c, "all VMs", func(banger.VM) bool { return true })
}

func newWait(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "wait VM...",
		Short: "Wait until VMs have ended and print their exit codes",
		Args:  command.Usage(cobra.MinimumNArgs(1)),
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, refs []string) error {
			return a.Each(refs, func(_ int, ref string) (string, error) {
				vm, err := client.Wait(ctx, ref)
				return strconv.Itoa(endCode(vm)), err
			})
		}),
	}
}

// endCode returns the exit code of a VM's main command. A VM that failed has exitBanger, and one that ended without an
// exit code 0.
func endCode(vm banger.VM) int {
	switch {
	case vm.ExitCode != nil:
		return *vm.ExitCode
	case vm.State == banger.StateFailed:
		return exitBanger
	}
	return 0
}

func newRename(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "rename VM NAME",
		Short: "Give a VM another name",
		Args:  command.Usage(cobra.ExactArgs(2)),
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
			_, err := client.Rename(ctx, args[0], args[1])
			a.refreshSSH(ctx)
			return err
		}),
	}
}

func newPrune(a *app) *cobra.Command {
	var force bool
	c := &cobra.Command{Use: "prune", Short: "Remove all VMs that do not run", Args: command.Usage(cobra.NoArgs)}
	c.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	prune := a.WithClient(func(ctx context.Context, client *client.Client, _ []string) error {
		removed, err := client.Prune(ctx)
		a.refreshSSH(ctx)
		for _, vm := range removed {
			a.Say(vm.Name)
		}
		return err
	})
	c.RunE = func(c *cobra.Command, args []string) error {
		if !force {
			err := a.Confirm("This removes every VM that does not run, with its disk. Go on?", "--force")
			if err != nil {
				return err
			}
		}
		return prune(c, args)
	}
	return c
}
