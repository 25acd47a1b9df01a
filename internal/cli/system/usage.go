package system

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/api/wire"
	"banger/internal/cli/command"
)

func newUsage(g *group) *cobra.Command {
	c := &cobra.Command{
		Use:   "df",
		Short: "Show what images, VMs, snapshots, kernels and templates take on the disk",
		Args:  command.Usage(cobra.NoArgs),
		Long: `Show what images, VMs, snapshots, layers, kernels and templates take on the disk. Layers are parts of disks
that VMs and snapshots share. Active are images and kernels of a VM, VMs that run, layers beneath the disk of a VM, and
templates from which VMs that run have started. Reclaimable is what banger system prune --all gives back. With
--verbose, each VM and each snapshot has a line, with what it takes alone and what its disk shares. banger image df has
each image, and banger warm ls each template.`,
	}
	verbose := c.Flags().BoolP("verbose", "v", false, "each VM and each snapshot")
	return command.Lists(g.App, c, command.Listing[wire.Usage]{
		Get: func(ctx context.Context, client *client.Client, _ []string) ([]wire.Usage, error) {
			return client.Usage(ctx, *verbose)
		},
		Name: func(u wire.Usage) string { return u.Type },
		Head: []string{"TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"},
		More: func() []string {
			if *verbose {
				return []string{"SHARED"}
			}
			return nil
		},
		Row: func(u wire.Usage) []string {
			row := []string{u.Type, strconv.Itoa(u.Total), strconv.Itoa(u.Active), banger.FormatSize(u.Size),
				banger.FormatSize(u.Reclaimable)}
			if u.Name != "" {
				row = []string{"  " + u.Name, "", "", banger.FormatSize(u.Size), ""}
			}
			if *verbose && u.Name != "" {
				row = append(row, banger.FormatSize(u.Shared))
			}
			return row
		},
		Docker: func(u wire.Usage) map[string]any {
			return map[string]any{"Type": u.Type, "TotalCount": u.Total, "Active": u.Active,
				"Size": banger.FormatSize(u.Size), "Reclaimable": banger.FormatSize(u.Reclaimable)}
		},
	})
}
