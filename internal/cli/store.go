package cli

import (
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
	var format string
	c := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List images", Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			list, err := client.Images(c.Context())
			if err != nil {
				return err
			}
			if format == "json" {
				return a.printJSON(list)
			}
			if a.quiet {
				for _, img := range list {
					fmt.Fprintln(a.stdout, img.Digest)
				}
				return nil
			}
			t := a.table("REFERENCE", "DIGEST", "PLATFORM", "SIZE", "PULLED")
			for _, img := range list {
				t.row(img.Reference, shorten(strings.TrimPrefix(img.Digest, "sha256:"), 13), img.Platform, banger.FormatSize(img.Size), age(img.PulledAt))
			}
			return t.flush()
		}}
	c.Flags().StringVar(&format, "format", "table", "table or json")
	return c
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
	var format string
	c := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List kernels", Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			list, err := client.Kernels(c.Context())
			if err != nil {
				return err
			}
			if format == "json" {
				return a.printJSON(list)
			}
			if a.quiet {
				for _, k := range list {
					fmt.Fprintln(a.stdout, k.Name)
				}
				return nil
			}
			t := a.table("NAME", "VERSION", "SIZE", "DEFAULT", "SOURCE", "ADDED")
			for _, k := range list {
				def := ""
				if k.Default {
					def = "yes"
				}
				t.row(k.Name, k.Version, banger.FormatSize(k.Size), def, k.Source, age(k.AddedAt))
			}
			return t.flush()
		}}
	c.Flags().StringVar(&format, "format", "table", "table or json")
	return c
}
