package library

import (
	"context"
	"path/filepath"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/account"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
)

// NewKernel returns the family of commands for guest kernels.
func NewKernel(a *command.App) *cobra.Command {
	c := &cobra.Command{Use: "kernel", Short: "Work with guest kernels"}
	inspect := &cobra.Command{
		Use:   "inspect KERNEL...",
		Short: "Show kernels as JSON",
		Args:  command.Usage(cobra.MinimumNArgs(1)),
	}
	remove := &cobra.Command{
		Use:   "rm KERNEL...",
		Short: "Remove kernels that no VM uses",
		Args:  command.Usage(cobra.MinimumNArgs(1)),
	}
	c.AddCommand(&cobra.Command{
		Use:   "pull",
		Short: "Fetch the distribution's cloud kernel",
		Args:  command.Usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return addKernel(account.WithProxies(c.Context()), a, (*client.Client).PullKernel)
		},
	}, newKernelImport(a), newKernelList(a),
		command.Inspects(a, inspect, nil,
			func(ctx context.Context, client *client.Client, name string) (banger.Kernel, error) {
				return client.Kernel(ctx, name)
			}),
		command.Removes(a, remove, func(ctx context.Context, client *client.Client, name string) error {
			return client.RemoveKernel(ctx, name)
		}))
	return c
}

// addKernel calls add, shows its progress and prints the name of the kernel.
func addKernel(ctx context.Context, a *command.App,
	add func(*client.Client, context.Context, banger.Emit) (banger.Kernel, error)) error {
	client, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	p := a.Progress()
	k, err := add(client, ctx, p.Emit)
	p.Close()
	if err != nil {
		return err
	}
	a.Say(k.Name)
	return nil
}

// importOptions say from which files a kernel is made.
type importOptions struct {
	host    bool
	vmlinux string
	modules string
	name    string
}

func newKernelImport(a *command.App) *cobra.Command {
	var o importOptions
	c := &cobra.Command{
		Use:   "import (--host | --vmlinux FILE --modules DIR)",
		Short: "Add a kernel from files of this host",
		Args:  command.Usage(cobra.NoArgs),
		RunE:  func(c *cobra.Command, _ []string) error { return runKernelImport(c.Context(), a, o) },
	}
	c.Flags().BoolVar(&o.host, "host", false, "the kernel this host runs, from /boot and /lib/modules")
	c.Flags().StringVar(&o.vmlinux, "vmlinux", "", "kernel image (vmlinux or bzImage)")
	c.Flags().StringVar(&o.modules, "modules", "", "its module directory, …/lib/modules/VERSION")
	c.Flags().StringVar(&o.name, "name", "", "name of the kernel (default: its version)")
	return c
}

func runKernelImport(ctx context.Context, a *command.App, o importOptions) error {
	if o.host == (o.vmlinux != "") || (o.vmlinux == "") != (o.modules == "") {
		return command.UsageErrorf("give either --host, or --vmlinux and --modules")
	}
	if !o.host {
		var err error
		if o.vmlinux, err = filepath.Abs(o.vmlinux); err != nil {
			return err
		}
		if o.modules, err = filepath.Abs(o.modules); err != nil {
			return err
		}
		if o.name == "" {
			o.name = filepath.Base(o.modules)
		}
	}
	return addKernel(ctx, a, func(c *client.Client, ctx context.Context, emit banger.Emit) (banger.Kernel, error) {
		return c.ImportKernel(ctx, o.name, o.vmlinux, o.modules, emit)
	})
}

func newKernelList(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List kernels",
		Args:    command.Usage(cobra.NoArgs),
	}
	return command.Lists(a, c, command.Listing[banger.Kernel]{
		Get: func(ctx context.Context, client *client.Client, _ []string) ([]banger.Kernel, error) {
			return client.Kernels(ctx)
		},
		Name: func(k banger.Kernel) string { return k.Name },
		Head: []string{"NAME", "VERSION", "SIZE", "DEFAULT", "SOURCE", "ADDED"},
		Row: func(k banger.Kernel) []string {
			def := ""
			if k.Default {
				def = "yes"
			}
			return []string{k.Name, k.Version, banger.FormatSize(k.Size), def, k.Source, render.Age(k.AddedAt)}
		},
	})
}
