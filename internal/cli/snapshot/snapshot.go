// Package snapshot has the commands for snapshots of VMs and for forks. It must not know how either is made.
package snapshot

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
)

// New returns the command snapshot with its commands.
func New(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "snapshot",
		Short: "Keep states of VMs, and go back to them",
		Long: `Keep states of VMs, and go back to them. A snapshot has the disk of a VM and, if the VM runs or is
suspended, its memory: all programs as they were at one instant. A VM that runs goes on after it has stood still for a
moment.`,
		Example: `  banger snapshot create web before
  banger snapshot restore web before
  banger run --from before --name web2`,
	}
	c.AddCommand(newCreate(a), newList(a), newInspect(a), newRestore(a), newRemove(a))
	return c
}

func newCreate(a *command.App) *cobra.Command {
	var with bool
	c := &cobra.Command{
		Use:   "create VM [NAME]",
		Short: "Take a snapshot of a VM and print its name",
		Args:  command.Usage(cobra.RangeArgs(1, 2)),
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
			name := ""
			if len(args) == 2 {
				name = args[1]
			}
			s, err := client.CreateSnapshot(ctx, args[0], name, with)
			if err != nil {
				return err
			}
			a.Say(s.Name)
			if !a.Quiet && s.Paused > 0 {
				render.Line(a.Stderr, fmt.Sprintf("banger: %s stood still for %d ms", s.VMName, s.Paused))
			}
			return nil
		}),
	}
	command.WithSecrets(c.Flags(), &with)
	return c
}

func newList(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:     "ls [VM]",
		Aliases: []string{"list"},
		Short:   "List snapshots, or those of one VM",
		Args:    command.Usage(cobra.MaximumNArgs(1)),
	}
	tree := c.Flags().Bool("tree", false, "show which snapshot came from which")
	depth := map[string]int{}
	return command.Lists(a, c, command.Listing[banger.Snapshot]{
		Get: func(ctx context.Context, client *client.Client, args []string) ([]banger.Snapshot, error) {
			vm := ""
			if len(args) == 1 {
				vm = args[0]
			}
			list, err := client.Snapshots(ctx, vm)
			if *tree {
				list, depth = asTree(list)
			}
			return list, err
		},
		Name: func(s banger.Snapshot) string { return s.Name },
		Head: []string{"NAME", "ID", "VM", "MEMORY", "SIZE", "CREATED"},
		Row: func(s banger.Snapshot) []string {
			memory, automatic := "no", ""
			if s.Memory {
				memory = "yes"
			}
			if s.Automatic {
				automatic = " (automatic)"
			}
			return []string{strings.Repeat("  ", depth[s.ID]) + s.Name + automatic, s.ID, s.VMName, memory,
				banger.FormatSize(s.Size), render.Age(s.Created)}
		},
	})
}

// asTree returns the snapshots so that each stands behind its parent, the oldest first, with how deep each is.
func asTree(list []banger.Snapshot) (sorted []banger.Snapshot, depth map[string]int) {
	there, children := map[string]bool{}, map[string][]banger.Snapshot{}
	for _, s := range list {
		there[s.ID] = true
	}
	for i := len(list) - 1; i >= 0; i-- { // the oldest is last
		parent := list[i].Parent
		if !there[parent] {
			parent = ""
		}
		children[parent] = append(children[parent], list[i])
	}
	depth = map[string]int{}
	var walk func(parent string, at int)
	walk = func(parent string, at int) {
		for _, s := range children[parent] {
			sorted, depth[s.ID] = append(sorted, s), at
			walk(s.ID, at+1)
		}
	}
	walk("", 0)
	return sorted, depth
}

func newInspect(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "inspect SNAPSHOT...",
		Short: "Show all about snapshots as JSON",
		Args:  command.Usage(cobra.MinimumNArgs(1)),
	}
	command.Inspects(a, c, nil, func(ctx context.Context, client *client.Client, ref string) (banger.Snapshot, error) {
		return client.Snapshot(ctx, ref)
	})
	return c
}

func newRestore(a *command.App) *cobra.Command {
	var with bool
	c := &cobra.Command{
		Use:   "restore VM SNAPSHOT",
		Short: "Let a VM go back to one of its snapshots; its present state is kept as an automatic one",
		Args:  command.Usage(cobra.ExactArgs(2)),
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
			p := a.Progress()
			_, err := client.Restore(ctx, args[0], args[1], with, p.Emit)
			p.Close()
			if err == nil {
				a.Say(args[0])
			}
			return err
		}),
	}
	command.WithSecrets(c.Flags(), &with)
	return c
}

func newRemove(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:     "rm SNAPSHOT...",
		Aliases: []string{"remove"},
		Short:   "Remove snapshots; VMs that have gone on from them stay as they are",
		Args:    command.Usage(cobra.MinimumNArgs(1)),
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
			return a.Each(args, func(_ int, ref string) (string, error) { return ref, client.RemoveSnapshot(ctx, ref) })
		}),
	}
}
