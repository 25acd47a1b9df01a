package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/cli/sshfiles"
	"banger/internal/sshconf"
)

func newSSHConfig(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "ssh-config",
		Short: "Let ssh, scp, rsync, git and editors reach VMs as NAME.vm",
		Long: `Let ssh, scp, sftp, rsync, git and editors reach VMs as NAME.vm. install adds one line to the top of
~/.ssh/config, which includes a file that banger keeps up to date; uninstall takes it away again. print
shows that file's text and leaves ~/.ssh alone. Agent forwarding is for banger ssh -A alone.`,
		Example: `  banger ssh-config install
  scp file web.vm:
  banger ssh-config print web > config; ssh -F config web.vm`,
		Args: command.Usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(&cobra.Command{
		Use:   "install",
		Short: "Include banger's file in ~/.ssh/config",
		Args:  command.Usage(cobra.NoArgs),
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, _ []string) error {
			files, err := sshfiles.Open(a.Paths)
			if err != nil {
				return err
			}
			user, ours, err := files.Install(ctx, client)
			if err == nil {
				fmt.Fprintf(a.Stdout, "%s includes %s\n", user, ours)
			}
			return err
		}),
	}, &cobra.Command{
		Use:   "uninstall",
		Short: "Undo install",
		Args:  command.Usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			files, err := sshfiles.Open(a.Paths)
			if err != nil {
				return err
			}
			return files.Uninstall()
		},
	}, &cobra.Command{
		Use:   "print [VM...]",
		Short: "Print the configuration of these VMs, or of all",
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, names []string) error {
			return printSSHConfig(ctx, a, client, names)
		}),
	})
	return c
}

// printSSHConfig prints the configuration of the named VMs, or of all VMs if there are no names.
func printSSHConfig(ctx context.Context, a *app, client *client.Client, names []string) error {
	var ids []string
	for _, name := range names {
		vm, err := client.Get(ctx, strings.TrimSuffix(name, sshconf.Suffix))
		if err != nil {
			return err
		}
		ids = append(ids, vm.ID)
	}
	files, err := sshfiles.Open(a.Paths)
	if err != nil {
		return err
	}
	hosts, err := sshfiles.Hosts(ctx, client)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		hosts = slices.DeleteFunc(hosts, func(h sshconf.Host) bool { return !slices.Contains(ids, h.ID) })
	}
	text, err := files.Text(hosts)
	if err != nil {
		return err
	}
	if err := files.Write(ctx, client, false); err != nil { // the printed configuration refers to these files
		return err
	}
	_, err = a.Stdout.Write(text)
	return err
}

// refreshSSH updates an installed configuration of ssh after a VM was created, removed or renamed. A failure is only
// reported, because the operation on the VM itself has succeeded.
func (a *app) refreshSSH(ctx context.Context) {
	if err := sshfiles.Refresh(ctx, a.Paths, a.Client); err != nil {
		fmt.Fprintln(a.Stderr, "banger: the configuration of ssh was not brought up to date:", render.Message(err))
	}
}
