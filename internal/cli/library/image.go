// Package library has the commands for images and kernels, of which VMs are made, and for templates, from which they
// start.
//
// It must not know the commands for VMs.
package library

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/account"
	"banger/internal/cli/command"
	"banger/internal/cli/format"
	"banger/internal/cli/render"
	"banger/internal/cli/spec"
	"banger/internal/text"
)

// NewImage returns the family of commands for images.
func NewImage(a *command.App) *cobra.Command {
	c := &cobra.Command{Use: "image", Short: "Work with images"}
	inspect := &cobra.Command{
		Use:   "inspect IMAGE...",
		Short: "Show images as JSON",
		Args:  command.Usage(cobra.MinimumNArgs(1)),
	}
	remove := &cobra.Command{
		Use:   "rm IMAGE...",
		Short: "Remove images that no VM uses",
		Args:  command.Usage(cobra.MinimumNArgs(1)),
	}
	tag := &cobra.Command{
		Use:   "tag IMAGE NAME[:TAG]",
		Short: "Give an image another name",
		Args:  command.Usage(cobra.ExactArgs(2)),
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
			img, err := client.TagImage(ctx, spec.AbsoluteReference(args[0]), args[1])
			if err != nil {
				return err
			}
			a.Say(img.Reference)
			return nil
		}),
	}
	c.AddCommand(newImagePull(a), newImagePush(a), newImageList(a), newImageHistory(a), tag, newImageRegister(a),
		newImagePromote(a), newImageSave(a), newImageLoad(a), newImageExtend(a),
		newImageUsage(a), newImagePrune(a),
		command.Inspects(a, inspect, format.InspectImage,
			func(ctx context.Context, client *client.Client, ref string) (banger.Image, error) {
				return client.Image(ctx, spec.AbsoluteReference(ref))
			}),
		command.Removes(a, remove, func(ctx context.Context, client *client.Client, ref string) error {
			return client.RemoveImage(ctx, spec.AbsoluteReference(ref))
		}))
	return c
}

func newImagePull(a *command.App) *cobra.Command {
	var platform string
	c := &cobra.Command{
		Use:   "pull IMAGE",
		Short: "Fetch an image and make its root file system",
		Args:  command.Usage(cobra.ExactArgs(1)),
		Example: `  banger image pull docker.io/library/debian:bookworm
  banger image pull debian-bookworm            from the built-in catalogue, by the host's apt sources
  banger image pull oci:DIR[:tag]              an OCI layout; also oci-archive:FILE, docker-archive:FILE, - for stdin
  banger image pull docker-daemon:NAME         from a running docker; also podman:NAME`,
	}
	c.Flags().StringVar(&platform, "platform", "", "os/arch[/variant] to choose from an image of several")
	return command.WithProgress(a, c, func(ctx context.Context, o command.Operation, args []string) error {
		if args[0] == "docker-archive:-" || args[0] == "oci-archive:-" {
			return o.Images(o.Client.LoadImages(ctx, a.Stdin, o.Emit))
		}
		ref := spec.AbsoluteReference(args[0])
		ctx, err := account.With(ctx, ref)
		if err != nil {
			return err
		}
		return o.Image(o.Client.PullImage(ctx, ref, platform, o.Emit))
	})
}

func newImagePush(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "push IMAGE",
		Short: "Write an image to the registry that its name says",
		Args:  command.Usage(cobra.ExactArgs(1)),
	}
	return command.WithProgress(a, c, func(ctx context.Context, o command.Operation, args []string) error {
		img, err := o.Client.Image(ctx, args[0]) // which may be named by its digest
		if err != nil {
			return err
		}
		if ctx, err = account.With(ctx, img.Reference); err != nil {
			return err
		}
		return o.Image(o.Client.PushImage(ctx, args[0], o.Emit))
	})
}

func newImageHistory(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "history IMAGE",
		Short: "Show how an image was built",
		Args:  command.Usage(cobra.ExactArgs(1)),
	}
	return command.Lists(a, c, command.Listing[banger.ImageStep]{
		Get: func(ctx context.Context, client *client.Client, args []string) ([]banger.ImageStep, error) {
			return client.ImageHistory(ctx, spec.AbsoluteReference(args[0]))
		},
		Name: func(s banger.ImageStep) string { return s.Layer },
		Head: []string{"LAYER", "CREATED", "SIZE", "CREATED BY"},
		Row: func(s banger.ImageStep) []string {
			layer, created, size := "-", "-", ""
			if s.Layer != "" {
				layer, size = render.Digest(s.Layer), banger.FormatSize(s.Size)
			}
			if !s.Created.IsZero() {
				created = render.Age(s.Created)
			}
			return []string{layer, created, size, text.Limit(s.By, 100)}
		},
		Docker: format.Step,
	})
}

func newImageRegister(a *command.App) *cobra.Command {
	var rootfs, kernel string
	c := &cobra.Command{
		Use:   "register NAME --rootfs FILE",
		Short: "Use an ext4 file of the host as an image, where it lies",
		Args:  command.Usage(cobra.ExactArgs(1)),
		Long: "Use an ext4 file of the host as an image, where it lies. It must not change afterwards; " +
			"`banger image promote` copies it.",
		PreRunE: func(*cobra.Command, []string) error {
			if rootfs == "" {
				return command.UsageErrorf("give the file that holds the file system: --rootfs FILE")
			}
			return nil
		},
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
			path, err := filepath.Abs(rootfs)
			if err != nil {
				return err
			}
			img, err := client.RegisterImage(ctx, args[0], path, kernel)
			if err == nil {
				a.Say(img.Digest)
			}
			return err
		}),
	}
	c.Flags().StringVar(&rootfs, "rootfs", "", "file that holds the file system")
	c.Flags().StringVar(&kernel, "kernel", "", "kernel that its VMs get unless they name one")
	return c
}

func newImagePromote(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:   "promote IMAGE",
		Short: "Copy a registered file into banger's own storage",
		Args:  command.Usage(cobra.ExactArgs(1)),
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
			img, err := client.PromoteImage(ctx, args[0])
			if err == nil {
				a.Say(img.Digest)
			}
			return err
		}),
	}
}

func newImageUsage(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "df",
		Short: "Show what images take on the disk, and what they share",
		Args:  command.Usage(cobra.NoArgs),
	}
	return command.Lists(a, c, command.Listing[banger.ImageUsage]{
		Get: func(ctx context.Context, client *client.Client, _ []string) ([]banger.ImageUsage, error) {
			return client.ImageUsage(ctx)
		},
		Name: func(u banger.ImageUsage) string { return u.Digest },
		Head: []string{"DIGEST", "FILE SYSTEM", "LAYERS", "SHARED", "REFERENCES"},
		Row: func(u banger.ImageUsage) []string {
			return []string{
				render.Digest(u.Digest),
				banger.FormatSize(u.Rootfs),
				banger.FormatSize(u.Blobs),
				banger.FormatSize(u.Shared),
				strings.Join(u.References, " "),
			}
		},
	})
}
