package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/text"
)

func newList(a *app) *cobra.Command {
	var all bool
	var filters []string
	c := &cobra.Command{
		Use:     "ps",
		Aliases: []string{"ls", "list"},
		Short:   "List VMs",
		Args:    command.Usage(cobra.NoArgs),
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "also VMs that do not run")
	c.Flags().StringArrayVarP(&filters, "filter", "f", nil, "name=, id=, state=, image= or label=KEY[=VALUE]")
	return command.Lists(a.App, c, command.Listing[banger.VM]{
		Get: func(ctx context.Context, client *api.Client, _ []string) ([]banger.VM, error) {
			// A filter by state replaces the default of running VMs only.
			for _, f := range filters {
				all = all || strings.HasPrefix(f, "state=") || strings.HasPrefix(f, "status=")
			}
			if differs := a.Daemon.Differs(); differs != "" && !a.Quiet {
				render.Line(a.Stderr, "banger: "+differs)
			}
			return client.List(ctx, all, filters)
		},
		Name: func(vm banger.VM) string { return vm.ID },
		Head: []string{"ID", "NAME", "IMAGE", "COMMAND", "STATE", "ISOLATION", "CREATED"},
		Row:  vmRow,
	})
}

func vmRow(vm banger.VM) []string {
	command := "-"
	if vm.Main != nil {
		command = text.Limit(strings.Join(vm.Main.Args, " "), 24)
	}
	state := string(vm.State)
	if vm.State == banger.StateStopped && vm.ExitCode != nil {
		state = fmt.Sprintf("stopped (%d)", *vm.ExitCode)
	}
	if vm.State == banger.StateFailed && vm.Reason != "" {
		state = text.Limit("failed: "+vm.Reason, 48)
	}
	image := text.Limit(vm.Spec.Image, 40)
	return []string{vm.ID, vm.Name, image, command, state, vm.Isolation, render.Age(vm.CreatedAt)}
}

func newInspect(a *app) *cobra.Command {
	env := false
	c := &cobra.Command{
		Use:   "inspect VM...",
		Short: "Show everything about VMs as JSON",
		Args:  command.Usage(cobra.MinimumNArgs(1)),
	}
	c.Flags().BoolVar(&env, "show-env", false,
		"show the values that -e gave, which are "+banger.HiddenValue+" otherwise")
	return command.Inspects(a.App, c, func(ctx context.Context, client *api.Client, ref string) (banger.VM, error) {
		if env {
			return client.GetWithEnv(ctx, ref)
		}
		return client.Get(ctx, ref)
	})
}
