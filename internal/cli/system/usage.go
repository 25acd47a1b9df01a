package system

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/overlay"
	"banger/internal/reset"
)

// usage is one line of system df, with the names of docker's fields.
type usage struct {
	Type        string `json:"type"`
	Total       int    `json:"total"`
	Active      int    `json:"active"`
	Size        int64  `json:"size"`        // bytes on the disk
	Reclaimable int64  `json:"reclaimable"` // bytes that system prune --all gives back
	// Name and Shared are of one VM or one snapshot: Size is what it takes alone, and Shared what the layers of its disk
	// take, which others may need too.
	Name   string `json:"name,omitempty"`
	Shared int64  `json:"shared,omitempty"`
}

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
	return command.Lists(g.App, c, command.Listing[usage]{
		Get: func(ctx context.Context, client *client.Client, _ []string) ([]usage, error) {
			return g.usage(ctx, client, *verbose)
		},
		Name: func(u usage) string { return u.Type },
		Head: []string{"TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"},
		More: func() []string {
			if *verbose {
				return []string{"SHARED"}
			}
			return nil
		},
		Row: func(u usage) []string {
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
		Docker: func(u usage) map[string]any {
			return map[string]any{"Type": u.Type, "TotalCount": u.Total, "Active": u.Active,
				"Size": banger.FormatSize(u.Size), "Reclaimable": banger.FormatSize(u.Reclaimable)}
		},
	})
}

func (g *group) usage(ctx context.Context, client *client.Client, verbose bool) ([]usage, error) {
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
	found, ferr := reset.Measure(g.home())
	if err = cmp.Or(err, ferr); err != nil {
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
	if verbose {
		if list, err = withEach(ctx, client, list, vms, found); err != nil {
			return nil, err
		}
	} else {
		list = append(list, snapshots(found))
	}
	return append(append(list, layers(found.Layers, vms), templates(frozen, templatesUsed)), workspaces(found)...), nil
}

// workspaces returns the line of workspaces, if there are any.
func workspaces(f reset.Found) []usage {
	if f.Workspaces.Count == 0 {
		return nil
	}
	return []usage{{Type: "Workspaces", Total: f.Workspaces.Count, Size: f.Workspaces.Bytes}}
}

func snapshots(f reset.Found) usage {
	return usage{Type: "Snapshots", Total: f.Snapshots.Count, Size: f.Snapshots.Bytes}
}

// withEach adds the lines of each VM behind that of all VMs, the second one, and those of snapshots.
func withEach(ctx context.Context, client *client.Client, list []usage, vms []banger.VM,
	found reset.Found) ([]usage, error) {
	all, err := client.Snapshots(ctx, "")
	if err != nil {
		return nil, err
	}
	room := map[string]int64{}
	for _, vm := range found.VMs {
		room[vm.ID] = vm.Bytes
	}
	var each []usage
	add := func(kind, name string, size int64, layer string) {
		u := usage{Type: kind, Name: name, Size: size}
		for _, bytes := range beneath(found.Layers, layer) {
			u.Shared += bytes
		}
		each = append(each, u)
	}
	for _, vm := range vms {
		add("VM", vm.Name, room[vm.ID], vm.Base)
	}
	list = slices.Insert(list, 2, each...)
	each = nil
	for _, s := range all {
		add("Snapshot", s.Name, s.Size, s.Layer)
	}
	return append(append(list, snapshots(found)), each...), nil
}

// layers returns the line of layers. Each of them is needed by a VM or a snapshot.
func layers(list []overlay.Usage, vms []banger.VM) usage {
	u := usage{Type: "Layers", Total: len(list)}
	active := map[string]bool{}
	for _, vm := range vms {
		for id := range beneath(list, vm.Base) {
			active[id] = true
		}
	}
	for _, l := range list {
		u.Size += l.Bytes
		if active[l.ID] {
			u.Active++
		}
	}
	return u
}

// beneath returns the layers that a layer consists of, with their sizes.
func beneath(list []overlay.Usage, id string) map[string]int64 {
	by, chain := map[string]overlay.Usage{}, map[string]int64{}
	for _, l := range list {
		by[l.ID] = l
	}
	for l, ok := by[id]; ok; l, ok = by[l.Parent] {
		if _, again := chain[l.ID]; again {
			break
		}
		chain[l.ID] = l.Bytes
	}
	return chain
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
