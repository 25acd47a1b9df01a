package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api"
)

func (a *app) imageCommand() *cobra.Command {
	c := &cobra.Command{Use: "image", Short: "Work with images"}
	pull := &cobra.Command{Use: "pull IMAGE", Short: "Fetch an image and make its root file system", Args: usage(cobra.ExactArgs(1)),
		Example: `  banger image pull docker.io/library/debian:bookworm
  banger image pull debian-bookworm            from the built-in catalogue, by the host's apt sources
  banger image pull oci-archive:image.tar`,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			p := a.progress()
			img, err := client.PullImage(c.Context(), absoluteReference(args[0]), p.emit)
			p.close()
			if err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, img.Digest)
			return nil
		}}
	inspect := &cobra.Command{Use: "inspect IMAGE...", Short: "Show images as JSON", Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			return inspectAll(a, args, func(ref string) (banger.Image, error) { return client.Image(c.Context(), absoluteReference(ref)) })
		}}
	rm := &cobra.Command{Use: "rm IMAGE...", Short: "Remove images that no VM uses", Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return a.each(c.Context(), args, func(client *api.Client, ref string) (string, error) {
				return ref, client.RemoveImage(c.Context(), absoluteReference(ref))
			})
		}}
	c.AddCommand(pull, a.imageListCommand(), inspect, rm)
	return c
}

func (a *app) imageListCommand() *cobra.Command {
	return listCommand(a, listing[banger.Image]{
		use: "ls", aliases: []string{"list"}, short: "List images",
		get:  func(ctx context.Context, client *api.Client) ([]banger.Image, error) { return client.Images(ctx) },
		name: func(img banger.Image) string { return img.Digest },
		head: []string{"REFERENCE", "DIGEST", "PLATFORM", "SIZE", "PULLED"},
		row: func(img banger.Image) []string {
			digest := shorten(strings.TrimPrefix(img.Digest, "sha256:"), 13)
			return []string{img.Reference, digest, img.Platform, banger.FormatSize(img.Size), age(img.PulledAt)}
		},
	})
}

// absoluteReference makes the path in a file reference absolute: the daemon has
// another working directory.
func absoluteReference(ref string) string {
	for _, scheme := range []string{"oci:", "oci-archive:", "docker-archive:"} {
		if path, ok := strings.CutPrefix(ref, scheme); ok && path != "" && !filepath.IsAbs(path) {
			if abs, err := filepath.Abs(path); err == nil {
				return scheme + abs
			}
		}
	}
	return ref
}

func (a *app) kernelCommand() *cobra.Command {
	c := &cobra.Command{Use: "kernel", Short: "Work with guest kernels"}
	pull := &cobra.Command{Use: "pull", Short: "Fetch the distribution's cloud kernel", Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.addKernel(c, func(client *api.Client, emit banger.Emit) (banger.Kernel, error) {
				return client.PullKernel(c.Context(), emit)
			})
		}}
	inspect := &cobra.Command{Use: "inspect KERNEL...", Short: "Show kernels as JSON", Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			return inspectAll(a, args, func(name string) (banger.Kernel, error) { return client.Kernel(c.Context(), name) })
		}}
	rm := &cobra.Command{Use: "rm KERNEL...", Short: "Remove kernels that no VM uses", Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return a.each(c.Context(), args, func(client *api.Client, name string) (string, error) {
				return name, client.RemoveKernel(c.Context(), name)
			})
		}}
	c.AddCommand(pull, a.kernelImportCommand(), a.kernelListCommand(), inspect, rm)
	return c
}

func (a *app) addKernel(c *cobra.Command, add func(*api.Client, banger.Emit) (banger.Kernel, error)) error {
	client, err := a.connect(c.Context())
	if err != nil {
		return err
	}
	p := a.progress()
	k, err := add(client, p.emit)
	p.close()
	if err != nil {
		return err
	}
	fmt.Fprintln(a.stdout, k.Name)
	return nil
}

func (a *app) kernelImportCommand() *cobra.Command {
	var host bool
	var vmlinux, modules, name string
	c := &cobra.Command{Use: "import (--host | --vmlinux FILE --modules DIR)", Short: "Add a kernel from files of this host", Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if host == (vmlinux != "") || (vmlinux == "") != (modules == "") {
				return &exitError{exitUsage, fmt.Errorf("give either --host, or --vmlinux and --modules")}
			}
			if !host {
				var err error
				if vmlinux, err = filepath.Abs(vmlinux); err != nil {
					return err
				}
				if modules, err = filepath.Abs(modules); err != nil {
					return err
				}
				if name == "" {
					name = filepath.Base(modules)
				}
			}
			return a.addKernel(c, func(client *api.Client, emit banger.Emit) (banger.Kernel, error) {
				return client.ImportKernel(c.Context(), name, vmlinux, modules, emit)
			})
		}}
	c.Flags().BoolVar(&host, "host", false, "the kernel this host runs, from /boot and /lib/modules")
	c.Flags().StringVar(&vmlinux, "vmlinux", "", "kernel image (vmlinux or bzImage)")
	c.Flags().StringVar(&modules, "modules", "", "its module directory, …/lib/modules/VERSION")
	c.Flags().StringVar(&name, "name", "", "name of the kernel (default: its version)")
	return c
}

func (a *app) kernelListCommand() *cobra.Command {
	return listCommand(a, listing[banger.Kernel]{
		use: "ls", aliases: []string{"list"}, short: "List kernels",
		get:  func(ctx context.Context, client *api.Client) ([]banger.Kernel, error) { return client.Kernels(ctx) },
		name: func(k banger.Kernel) string { return k.Name },
		head: []string{"NAME", "VERSION", "SIZE", "DEFAULT", "SOURCE", "ADDED"},
		row: func(k banger.Kernel) []string {
			def := ""
			if k.Default {
				def = "yes"
			}
			return []string{k.Name, k.Version, banger.FormatSize(k.Size), def, k.Source, age(k.AddedAt)}
		},
	})
}
