package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api"
)

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
	a.say(k.Name)
	return nil
}

func (a *app) kernelImportCommand() *cobra.Command {
	var host bool
	var vmlinux, modules, name string
	c := &cobra.Command{Use: "import (--host | --vmlinux FILE --modules DIR)",
		Short: "Add a kernel from files of this host", Args: usage(cobra.NoArgs),
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
