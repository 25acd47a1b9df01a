package system

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/cli/sshfiles"
	"banger/internal/dns"
	"banger/internal/reset"
)

// removal is one run of reset or uninstall.
type removal struct {
	*group
	force, dryRun bool
	hooks         bool // also what was installed outside of the two directories
}

func newReset(g *group) *cobra.Command {
	c := &cobra.Command{
		Use:   "reset",
		Short: "Remove all VMs, images, kernels and state; banger is as new",
		Long: `Remove all VMs, images, kernels, caches and state of this user, and stop the daemon. What ssh-config install
and dns install have set up goes on working for new VMs. It needs neither a daemon nor a database.`,
	}
	return completed(c, &removal{group: g})
}

func newUninstall(g *group) *cobra.Command {
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove everything but the program itself",
		Long: `Remove all VMs, images, kernels, caches and state of this user, and what ssh-config install and dns
install have set up, and stop the daemon. It needs neither a daemon nor a database. At the end it says how the
program itself is removed.`,
	}
	return completed(c, &removal{group: g, hooks: true})
}

func completed(c *cobra.Command, r *removal) *cobra.Command {
	c.Args = command.Usage(cobra.NoArgs)
	c.Flags().BoolVarP(&r.force, "force", "f", false, "do not ask")
	c.Flags().BoolVar(&r.dryRun, "dry-run", false, "only list what would be removed")
	c.RunE = func(c *cobra.Command, _ []string) error { return r.run(c.Context()) }
	return c
}

func (r *removal) run(ctx context.Context) error {
	found, err := reset.Look(r.home())
	if err != nil {
		return err
	}
	hook := r.findHooks()
	if found.Empty() && !hook.any() {
		fmt.Fprintln(r.Stderr, "there is nothing to remove")
		r.sayRest(hook)
		return nil
	}
	list := r.list(found, hook)
	if r.dryRun {
		r.print("Would be removed:", list)
		return nil
	}
	if !r.force {
		r.print("This removes, and it cannot be undone:", list)
		if err := r.Confirm("Go on?", "--force"); err != nil {
			return err
		}
	}
	// The hooks go first: they need files of the state, and ssh must not look for what is gone.
	if err := r.removeHooks(ctx, hook); err != nil {
		return err
	}
	err = reset.Remove(ctx, r.home(), r.kept(hook), func(step string) {
		if !r.Quiet {
			fmt.Fprintln(r.Stderr, step)
		}
	})
	if err != nil {
		return err
	}
	if !r.hooks {
		if err := sshfiles.Empty(r.Paths); err != nil {
			return err
		}
	}
	if !r.Quiet {
		fmt.Fprintf(r.Stderr, "removed, %s\n", banger.FormatSize(found.Bytes()))
	}
	r.sayRest(hook)
	return nil
}

// hooks are what was installed on the host outside of banger's directories.
type hooks struct {
	ssh     string         // the configuration that includes ours, or ""
	server  netip.AddrPort // that the file for the host's resolver names; not valid if there is no file
	ours    bool           // that server is this user's daemon
	program string         // this program
}

func (h hooks) any() bool { return h.ssh != "" || h.server.IsValid() && h.ours }

func (r *removal) findHooks() (h hooks) {
	if user, _, ok := sshfiles.Installed(r.Paths); ok {
		h.ssh = user
	}
	h.server, _ = dns.Detect(r.host.Root).Installed()
	port, err := os.ReadFile(filepath.Join(r.Paths.State, "dns.port"))
	h.ours = err == nil && strings.TrimSpace(string(port)) == strconv.Itoa(int(h.server.Port()))
	h.program, _ = os.Executable()
	return h
}

// kept returns the entries of the state directory that hooks need, if these stay.
func (r *removal) kept(h hooks) (names []string) {
	if r.hooks {
		return nil
	}
	if h.ssh != "" {
		names = append(names, "ssh")
	}
	if h.ours && h.server.IsValid() {
		names = append(names, "dns.port")
	}
	return names
}

// list returns a line for each kind of things that are removed.
func (r *removal) list(f reset.Found, h hooks) (lines []string) {
	add := func(there bool, format string, args ...any) {
		if there {
			lines = append(lines, fmt.Sprintf(format, args...))
		}
	}
	var machines []string
	room := int64(0)
	for _, vm := range f.VMs {
		name := vm.Name
		if name == "" {
			name = vm.ID
		}
		if vm.Running {
			name += " (runs)"
		}
		machines, room = append(machines, name), room+vm.Bytes
	}
	size := banger.FormatSize
	add(len(f.VMs) > 0, "%s with their disks, %s%s", number(len(f.VMs), "VM"), size(room), names(machines))
	add(f.Lost.Count > 0, "%s without a VM, %s", number(f.Lost.Count, "disk"), size(f.Lost.Bytes))
	add(f.Images.Bytes > 0, "%s, %s", number(f.Images.Count, "image"), size(f.Images.Bytes))
	add(f.Kernels.Bytes > 0, "%s, %s", number(f.Kernels.Count, "kernel"), size(f.Kernels.Bytes))
	add(f.Snapshots.Count > 0, "%s, %s", number(f.Snapshots.Count, "snapshot"), size(f.Snapshots.Bytes))
	layers := int64(0)
	for _, l := range f.Layers {
		layers += l.Bytes
	}
	add(layers > 0, "%s, %s", number(len(f.Layers), "layer"), size(layers))
	add(f.Workspaces.Count > 0, "%s, %s", number(f.Workspaces.Count, "workspace"), size(f.Workspaces.Bytes))
	add(f.Frozen.Bytes > 0, "%s, %s", number(f.Frozen.Count, "template"), size(f.Frozen.Bytes))
	add(f.Other.Count > 0, "database, logs, caches and keys, %s", size(f.Other.Bytes))
	add(f.Daemon != 0, "the daemon that runs, process %d", f.Daemon)
	add(f.Bridges, "networks of the host's kernel, with their rules")
	add(r.hooks && h.ssh != "", "the line for VMs in %s", h.ssh)
	add(r.hooks && h.server.IsValid() && h.ours && os.Geteuid() == 0, "the file %s", dns.DropInPath)
	for _, dir := range []string{r.Paths.State, r.Paths.Run} {
		_, err := os.Lstat(dir)
		add(err == nil, "the directory %s", dir)
	}
	return lines
}

func (r *removal) print(head string, lines []string) {
	r.Say(head)
	for _, line := range lines {
		r.Say("  " + line)
	}
}

// removeHooks removes what was installed, if that is wanted and this user may.
func (r *removal) removeHooks(ctx context.Context, h hooks) error {
	if !r.hooks {
		return nil
	}
	// Without a record of ours the line may be there all the same.
	if err := sshfiles.Uninstall(r.Paths); err != nil && h.ssh != "" {
		return err
	}
	if !h.server.IsValid() || !h.ours || os.Geteuid() != 0 {
		return nil
	}
	changed, err := dns.Detect(r.host.Root).Uninstall()
	if err != nil || !changed {
		return err
	}
	if err := r.host.ReloadResolver(ctx); err != nil { // a resolver that does not run reads its files when it starts
		fmt.Fprintln(r.Stderr, "banger:", err)
	}
	return nil
}

// sayRest says what uninstall leaves to the user.
func (r *removal) sayRest(h hooks) {
	if !r.hooks || r.dryRun {
		return
	}
	if h.server.IsValid() && !(h.ours && os.Geteuid() == 0) {
		whose := "names this daemon's server"
		if !h.ours {
			whose = "names a server that is not this user's"
		}
		r.Say(fmt.Sprintf("left to do: %s %s, %s: sudo banger dns uninstall", dns.DropInPath, whose, h.server))
	}
	if h.program == "" {
		return
	}
	prefix, inBin := strings.CutSuffix(filepath.Dir(h.program), "/bin")
	if _, err := os.Lstat(filepath.Join(prefix, "share/banger/installed")); inBin && err == nil {
		r.Say("left to do: make uninstall PREFIX=" + prefix)
		return
	}
	r.Say("left to do: rm " + h.program)
}
