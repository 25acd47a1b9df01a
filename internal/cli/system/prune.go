package system

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/reset"
	"banger/internal/text"
)

// pruneOptions are the flags of system prune.
type pruneOptions struct{ all, force bool }

func newPrune(g *group) *cobra.Command {
	var o pruneOptions
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove VMs that do not run, networks without VMs, and unused images and templates",
		Args:  command.Usage(cobra.NoArgs),
	}
	c.Flags().BoolVarP(&o.all, "all", "a", false,
		"all images that no VM uses, not only those without a name; all templates")
	c.Flags().BoolVarP(&o.force, "force", "f", false, "do not ask")
	c.RunE = g.WithClient(func(ctx context.Context, client *client.Client, _ []string) error {
		return g.prune(ctx, client, o)
	})
	return c
}

func (g *group) prune(ctx context.Context, client *client.Client, o pruneOptions) error {
	vms, networks, err := unused(ctx, client)
	if err != nil {
		return err
	}
	if !o.force {
		images, templates := "images without a name, and files of no image", "templates from which no VM can start then"
		if o.all {
			images, templates = "all images that no VM uses then", "all templates"
		}
		fmt.Fprintf(g.Stderr, "This removes:\n  %s with their disks%s\n  %s without VMs%s\n  %s\n  %s\n",
			number(len(vms), "VM"), names(vms), number(len(networks), "network"), names(networks), images, templates)
		if err := g.Confirm("Go on?", "--force"); err != nil {
			return err
		}
	}
	before, err := reset.Measure(g.home())
	if err != nil {
		return err
	}
	removed, err := client.Prune(ctx)
	g.host.RefreshSSH(ctx)
	freed := int64(0)
	for _, vm := range removed {
		g.Say(vm.Name)
		for _, f := range before.VMs {
			if f.ID == vm.ID {
				freed += f.Bytes
			}
		}
	}
	if err != nil {
		return err
	}
	_, networks, err = unused(ctx, client) // also those of the VMs that are gone
	if err != nil {
		return err
	}
	for _, name := range networks {
		if err := client.RemoveNetwork(ctx, name); err != nil && banger.CodeOf(err) != banger.CodeConflict {
			return err
		}
		g.Say(name)
	}
	images, templates, err := g.pruneStore(ctx, client, o.all)
	if err != nil {
		return err
	}
	for _, t := range templates {
		freed += t.Size
	}
	if !g.Quiet {
		fmt.Fprintf(g.Stderr, "removed %s, %s, %s, %s and %s, %s\n", number(len(removed), "VM"),
			number(len(networks), "network"), number(len(images.Images), "image"), number(images.Blobs, "blob"),
			number(len(templates), "template"), banger.FormatSize(freed+images.Bytes))
	}
	return nil
}

// pruneStore removes images, and then templates, whose images may be gone by then. It prints what it has removed.
func (g *group) pruneStore(ctx context.Context, client *client.Client,
	all bool) (images banger.Pruned, templates []banger.Template, err error) {
	images, err = client.PruneImages(ctx, all, false)
	if err != nil {
		return images, nil, err
	}
	for _, digest := range images.Images {
		g.Say(digest)
	}
	templates, err = client.PruneTemplates(ctx, all, false)
	for _, t := range templates {
		g.Say(t.ID)
	}
	return images, templates, err
}

// unused returns the names of VMs that do not run, and of networks without a VM.
func unused(ctx context.Context, client *client.Client) (vms, networks []string, err error) {
	machines, err := client.List(ctx, true, nil)
	if err != nil {
		return nil, nil, err
	}
	for _, vm := range machines {
		if vm.State.AtRest() {
			vms = append(vms, vm.Name)
		}
	}
	made, err := client.Networks(ctx)
	for _, n := range made {
		if len(n.VMs) == 0 && n.Name != banger.NetworkBridge {
			networks = append(networks, n.Name)
		}
	}
	return vms, networks, err
}

// number returns "1 VM" or "2 VMs".
func number(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// names returns a list for the end of a line, or "".
func names(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return ": " + text.Line(strings.Join(list, ", "))
}
