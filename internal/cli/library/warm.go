package library

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
)

// NewWarm returns the family of commands for templates.
func NewWarm(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "warm",
		Short: "Work with templates, from which VMs start without a boot",
		Long: `Work with templates. A template is a guest that was frozen before anything of one VM existed. VMs of its
shape (image, kernel, CPUs, memory and so on) start from it, which takes less time than a boot. The daemon makes
templates by itself, when the host is idle. run --warm says whether a VM starts from one.`,
	}
	remove := &cobra.Command{
		Use:   "rm TEMPLATE...",
		Short: "Remove templates; VMs that have started from them go on",
		Args:  command.Usage(cobra.MinimumNArgs(1)),
	}
	c.AddCommand(newWarmList(a), newWarmPrune(a),
		command.Removes(a, remove, func(ctx context.Context, client *client.Client, id string) error {
			return client.RemoveTemplate(ctx, id)
		}))
	return c
}

func newWarmList(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List templates",
		Args:    command.Usage(cobra.NoArgs),
	}
	return command.Lists(a, c, command.Listing[banger.Template]{
		Get: func(ctx context.Context, client *client.Client, _ []string) ([]banger.Template, error) {
			return client.Templates(ctx)
		},
		Name: func(t banger.Template) string { return t.ID },
		Head: []string{"ID", "IMAGE", "VMM", "CPUS", "MEMORY", "NETWORK", "START", "SIZE", "CREATED", "USED"},
		Row: func(t banger.Template) []string {
			used := "never"
			if !t.UsedAt.IsZero() {
				used = render.Age(t.UsedAt)
			}
			return []string{t.ID, t.Image, t.VMM, strconv.Itoa(t.CPUs), banger.FormatSize(t.Memory), t.Network, t.Start,
				banger.FormatSize(t.Size), render.Age(t.CreatedAt), used}
		},
	})
}

func newWarmPrune(a *command.App) *cobra.Command {
	var all, dryRun bool
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove templates from which no VM can start any more",
		Args:  command.Usage(cobra.NoArgs),
		Long: `Remove the templates from which no VM can start any more, because their image or their kernel is gone, or
another version of banger has made them. VMs that have started from them go on.`,
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, _ []string) error {
			removed, err := client.PruneTemplates(ctx, all, dryRun)
			if err != nil {
				return err
			}
			room := int64(0)
			for _, t := range removed {
				a.Say(t.ID)
				room += t.Size
			}
			if !a.Quiet {
				said := map[bool]string{true: "would remove", false: "removed"}[dryRun]
				fmt.Fprintf(a.Stderr, "%s %d templates, %s\n", said, len(removed), banger.FormatSize(room))
			}
			return nil
		}),
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "every template")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be removed")
	return c
}
