package library

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/text"
)

// imagePruneOptions are the flags of image prune.
type imagePruneOptions struct {
	all    bool
	dryRun bool
	force  bool
}

func newImagePrune(a *command.App) *cobra.Command {
	var o imagePruneOptions
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove images without a name and blobs of no image",
		Args:  command.Usage(cobra.NoArgs),
		RunE:  func(c *cobra.Command, _ []string) error { return runImagePrune(c.Context(), a, o) },
	}
	c.Flags().BoolVarP(&o.all, "all", "a", false, "also images that have a name, but no VM")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "only say what would be removed")
	c.Flags().BoolVarP(&o.force, "force", "f", false, "do not ask")
	return c
}

func runImagePrune(ctx context.Context, a *command.App, o imagePruneOptions) error {
	if o.all && !o.force && !o.dryRun {
		if err := a.Confirm("This removes every image that no VM uses. Go on?", "--force"); err != nil {
			return err
		}
	}
	client, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	p, err := client.PruneImages(ctx, o.all, o.dryRun)
	if err != nil {
		return err
	}
	for _, digest := range p.Images {
		a.Say(digest)
	}
	if a.Quiet {
		return nil
	}
	verb := "removed"
	if o.dryRun {
		verb = "would remove"
	}
	for _, k := range p.Kept {
		name := cmp.Or(k.Reference, render.Digest(k.Image))
		fmt.Fprintf(a.Stderr, "%s stays: it is needed by %s\n", text.Line(name), text.Line(k.By))
	}
	fmt.Fprintf(a.Stderr, "%s %d images and %d blobs, %s\n", verb, len(p.Images), p.Blobs, banger.FormatSize(p.Bytes))
	return nil
}
