package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/sshconf"
	"banger/internal/text"
)

func (a *app) sshConfigCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "ssh-config", Short: "Let ssh, scp, rsync, git and editors reach VMs as NAME.vm",
		Long: `Let ssh, scp, sftp, rsync, git and editors reach VMs as NAME.vm. install adds one line to the top of ~/.ssh/config,
which includes a file that banger keeps up to date; uninstall takes it away again. print shows that file's text
and leaves ~/.ssh alone. Agent forwarding is for banger ssh -A alone.`,
		Example: `  banger ssh-config install
  scp file web.vm:
  banger ssh-config print web > config; ssh -F config web.vm`,
		Args: usage(cobra.NoArgs), RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(
		&cobra.Command{Use: "install", Short: "Include banger's file in ~/.ssh/config", Args: usage(cobra.NoArgs),
			RunE: func(c *cobra.Command, _ []string) error { return a.installSSH(c.Context()) }},
		&cobra.Command{Use: "uninstall", Short: "Undo install", Args: usage(cobra.NoArgs),
			RunE: func(c *cobra.Command, _ []string) error { return a.uninstallSSH() }},
		&cobra.Command{Use: "print [VM...]", Short: "Print the configuration of these VMs, or of all", ValidArgsFunction: a.completeVMs,
			RunE: func(c *cobra.Command, args []string) error { return a.printSSH(c.Context(), args) }},
	)
	return c
}

// install returns the place where the user's configuration includes ours.
func (f sshFiles) install() (sshconf.Install, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return sshconf.Install{}, banger.Errorf(banger.CodeInvalid, "there is no home directory: %w", err).WithHint("set HOME")
	}
	return sshconf.Install{User: filepath.Join(home, ".ssh", "config"), Ours: f.path("config"), Record: f.path("installed")}, nil
}

func (a *app) installSSH(ctx context.Context) error {
	if _, err := a.connect(ctx); err != nil {
		return err
	}
	files, err := a.sshFiles()
	if err != nil {
		return err
	}
	install, err := files.install()
	if err != nil {
		return err
	}
	if err := a.writeHosts(ctx, files, true); err != nil {
		return err
	}
	if err := install.Add(); err != nil {
		return banger.Errorf(banger.CodeDenied, "nothing was installed: %w", err).
			WithHint("or use: banger ssh-config print > FILE; ssh -F FILE NAME.vm")
	}
	fmt.Fprintf(a.stdout, "%s includes %s\n", install.User, install.Ours)
	return nil
}

func (a *app) uninstallSSH() error {
	files, err := a.sshFiles()
	if err != nil {
		return err
	}
	install, err := files.install()
	if err != nil {
		return err
	}
	if err := install.Remove(); err != nil {
		return banger.Errorf(banger.CodeDenied, "it is still installed: %w", err)
	}
	if err := os.Remove(install.Ours); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (a *app) printSSH(ctx context.Context, names []string) error {
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	var ids []string
	for _, name := range names {
		vm, err := client.Get(ctx, strings.TrimSuffix(name, sshconf.Suffix))
		if err != nil {
			return err
		}
		ids = append(ids, vm.ID)
	}
	files, err := a.sshFiles()
	if err != nil {
		return err
	}
	hosts, err := a.sshHosts(ctx)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		hosts = slices.DeleteFunc(hosts, func(h sshconf.Host) bool { return !slices.Contains(ids, h.ID) })
	}
	text, err := files.text(hosts)
	if err != nil {
		return err
	}
	if err := a.writeHosts(ctx, files, false); err != nil { // the printed configuration refers to these files
		return err
	}
	_, err = a.stdout.Write(text)
	return err
}

func (f sshFiles) text(hosts []sshconf.Host) ([]byte, error) {
	config, err := f.config(sshFlags{})
	if err != nil {
		return nil, err
	}
	text, err := config.Text(hosts)
	if err != nil {
		return nil, banger.Errorf(banger.CodeInvalid, "%w", err).WithHint("set BANGER_STATE_DIR to a plainer path")
	}
	return text, nil
}

// refreshSSH updates an installed configuration after a VM was created, removed or renamed. A failure is only
// reported, because the operation on the VM itself has succeeded.
func (a *app) refreshSSH(ctx context.Context) {
	if _, err := os.Lstat(filepath.Join(a.paths.State, "ssh", "installed")); err != nil {
		return
	}
	files, err := a.sshFiles()
	if err == nil {
		err = a.writeHosts(context.WithoutCancel(ctx), files, true)
	}
	if err != nil {
		fmt.Fprintln(a.stderr, "banger: the configuration of ssh was not brought up to date:", text.Limit(err.Error(), maxMessage))
	}
}
