package system

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/reset"
)

// usage is one line of system df, with the names of docker's fields.
type usage struct {
	Type        string `json:"type"`
	Total       int    `json:"total"`
	Active      int    `json:"active"`
	Size        int64  `json:"size"`        // bytes on the disk
	Reclaimable int64  `json:"reclaimable"` // bytes that system prune --all gives back
}

func newUsage(g *group) *cobra.Command {
	c := &cobra.Command{
		Use:   "df",
		Short: "Show what images, VMs, kernels and templates take on the disk",
		Args:  command.Usage(cobra.NoArgs),
		Long: `Show what images, VMs, kernels and templates take on the disk. Active are images and kernels of a VM, VMs
that run, and templates from which those have started. Reclaimable is what banger system prune --all gives back.
banger image df has each image, and banger warm ls each template.`,
	}
	return command.Lists(g.App, c, command.Listing[usage]{
		Get: func(ctx context.Context, client *client.Client, _ []string) ([]usage, error) {
			return g.usage(ctx, client)
		},
		Name: func(u usage) string { return u.Type },
		Head: []string{"TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"},
		Row: func(u usage) []string {
			return []string{u.Type, strconv.Itoa(u.Total), strconv.Itoa(u.Active), banger.FormatSize(u.Size),
				banger.FormatSize(u.Reclaimable)}
		},
		Docker: func(u usage) map[string]any {
			return map[string]any{"Type": u.Type, "TotalCount": u.Total, "Active": u.Active,
				"Size": banger.FormatSize(u.Size), "Reclaimable": banger.FormatSize(u.Reclaimable)}
		},
	})
}

func (g *group) usage(ctx context.Context, client *client.Client) ([]usage, error) {
	vms, err := client.List(ctx, true, nil)
	if err != nil {
		return nil, err
	}
	images, err := client.ImageUsage(ctx)
	if err != nil {
		return nil, err
	}
	kernels, err := client.Kernels(ctx)
	if err != nil {
		return nil, err
	}
	unused, err := client.PruneImages(ctx, true, true)
	if err != nil {
		return nil, err
	}
	frozen, err := client.Templates(ctx)
	if err != nil {
		return nil, err
	}
	found, err := reset.Measure(g.home())
	if err != nil {
		return nil, err
	}
	room := map[string]int64{}
	for _, vm := range found.VMs {
		room[vm.ID] = vm.Bytes
	}
	machines := usage{Type: "VMs", Total: len(vms)}
	imagesUsed, kernelsUsed, templatesUsed := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, vm := range vms {
		imagesUsed[vm.ImageDigest], kernelsUsed[vm.Kernel] = true, true
		machines.Size += room[vm.ID]
		if vm.State.AtRest() {
			machines.Reclaimable += room[vm.ID]
		} else {
			machines.Active++
			templatesUsed[vm.Template] = true
		}
	}
	list := []usage{{Type: "Images", Total: len(images), Size: found.Images.Bytes, Reclaimable: unused.Bytes}, machines,
		{Type: "Kernels", Total: len(kernels), Size: found.Kernels.Bytes}}
	for _, img := range images {
		if imagesUsed[img.Digest] {
			list[0].Active++
		}
	}
	for _, k := range kernels {
		if kernelsUsed[k.Name] {
			list[2].Active++
		}
	}
	return append(list, templates(frozen, templatesUsed)), nil
}

// templates returns the line of templates. VMs that have started from one do not need it, so all can go.
func templates(list []banger.Template, used map[string]bool) usage {
	u := usage{Type: "Templates", Total: len(list)}
	for _, t := range list {
		u.Size += t.Size
		u.Reclaimable += t.Size
		if used[t.ID] {
			u.Active++
		}
	}
	return u
}
