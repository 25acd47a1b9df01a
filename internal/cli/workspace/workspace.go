// Package workspace has the commands for workspaces: a user's repository goes into a VM, and the changes come out.
// What the VM says stays in a quarantine until git has checked it.
//
// The package must not know how a workspace is stored in the VM, nor how git is asked.
package workspace

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/exchange"
	"banger/internal/workspace"
)

// homeOf returns where this user's records of workspaces are.
func homeOf(a *command.App) workspace.Home { return exchange.HomeIn(a.Paths.Theirs()) }

// New returns the command workspace.
func New(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:     "workspace",
		Aliases: []string{"ws"},
		Short:   "Bring a repository into a VM, and its changes home",
		Long: `Bring a repository into a VM, and its changes home. A workspace is a working tree in a VM. What came in is its
baseline; what was changed since comes out as a list, a patch, a branch or a merge, also while the VM is stopped. The
VM needs no git.`,
		Example: `  banger workspace prepare web ~/src/project
  banger exec -it web sh
  banger workspace diff web
  banger workspace export web --branch from-web`,
	}
	c.AddCommand(newPrepare(a), newList(a), newStatus(a), newDiff(a), newSync(a), newExport(a), newPull(a), newReset(a),
		newRemove(a), newFork(a), newCompare(a), newKeep(a))
	return c
}

// of is what the commands about one workspace have in common: it finds the workspace that the first argument names.
func of(a *command.App, use func(ctx context.Context, p *exchange.Place, args []string) error) command.RunFunc {
	return a.WithClient(func(ctx context.Context, c *client.Client, args []string) error {
		p, err := exchange.Find(ctx, homeOf(a), c, args[0])
		if err != nil {
			return err
		}
		return use(ctx, p, args[1:])
	})
}

// prepareFlags are the flags of prepare.
type prepareFlags struct {
	workspace.Options
	user   string
	dryRun bool
}

func newPrepare(a *command.App) *cobra.Command {
	var o prepareFlags
	c := &cobra.Command{
		Use:   "prepare VM [PATH]",
		Short: "Bring a repository, or a directory, into a VM",
		Args:  command.Usage(cobra.RangeArgs(1, 2)),
		Long: `Bring the repository around PATH, or a directory that is in none, into a VM. PATH is preset to the current
directory. What git tracks comes in as it is in the working tree, with changes that are not committed, and with files of
submodules and of Git LFS that are there; what git ignores does not. The VM gets a repository of its own with the latest
history, and without remotes, hooks, filters and credentials.

If the VM has the workspace already, this is: banger workspace sync.`,
		Example: `  banger workspace prepare web
  banger workspace prepare web ~/src/project --to /src --include-untracked
  banger workspace prepare web --branch try --from v1.2`,
		RunE: a.WithClient(func(ctx context.Context, c *client.Client, args []string) error {
			if o.Source = "."; len(args) == 2 {
				o.Source = args[1]
			}
			return prepare(ctx, a, c, args[0], o)
		}),
	}
	fs := c.Flags()
	fs.StringVar(&o.Path, "to", Path, "where the VM gets it")
	fs.StringVar(&o.Name, "name", "", "its name; preset to the last part of --to")
	fs.StringVar(&o.Branch, "branch", "", "the branch of the VM's checkout; this host's stays as it is")
	fs.StringVar(&o.From, "from", "", "the commit at which that branch begins; preset to the working tree")
	fs.BoolVar(&o.Untracked, "include-untracked", false, "also bring what git does not track and does not ignore")
	fs.IntVar(&o.Depth, "depth", presetDepth, "how many commits of the history come along; 0 for all")
	fs.StringVarP(&o.user, "user", "u", "", "the user of the VM to whom the files belong")
	fs.BoolVar(&o.dryRun, "dry-run", false, "only say what would come in")
	return c
}

func prepare(ctx context.Context, a *command.App, c *client.Client, vm string, o prepareFlags) error {
	if o.From != "" && o.Branch == "" {
		return command.UsageErrorf("--from says at which commit --branch begins, so give a --branch")
	}
	if o.Depth < 0 {
		return command.UsageErrorf("--depth is %d, but must be 0 or more", o.Depth)
	}
	if o.Name == "" {
		o.Name = o.Path[strings.LastIndex(o.Path, "/")+1:]
	}
	if err := banger.CheckWorkspace(o.Name); err != nil {
		return err
	}
	if err := exchange.Active(ctx, c, vm, "make a workspace in"); err != nil && !o.dryRun {
		return err
	}
	if !o.dryRun {
		if known, err := prepareAgain(ctx, a, c, vm, o); known || err != nil {
			return err
		}
	}
	plan, err := homeOf(a).Plan(ctx, o.Options)
	if err != nil {
		return err
	}
	defer plan.Drop()
	notes(a, plan.Skip...)
	if o.dryRun {
		return showPlan(a, plan)
	}
	p := a.Progress()
	p.Emit(banger.Event{Stage: "workspace", Text: fmt.Sprintf("bring %d files in", plan.Files)})
	w, err := exchange.Bring(ctx, c, vm, o.user, plan)
	p.Emit(banger.Event{Stage: "workspace", Text: fmt.Sprintf("bring %d files in", plan.Files), Done: err == nil})
	p.Close()
	if err == nil {
		a.Say(w.Path)
	}
	return err
}

// prepareAgain brings what has changed on this host into a workspace that the VM has already. It returns false if the
// VM has no workspace of that name.
func prepareAgain(ctx context.Context, a *command.App, c *client.Client, vm string, o prepareFlags) (known bool,
	err error) {
	source, err := workspace.Source(ctx, o.Source)
	if err != nil {
		return false, err
	}
	list, err := c.Workspaces(ctx, vm)
	if err != nil {
		return false, err
	}
	for _, w := range list {
		if w.Name != o.Name {
			continue
		}
		if r, err := homeOf(a).Get(w.ID); err != nil || r.Source != source {
			return true, banger.Errorf(banger.CodeConflict, "VM %s has a workspace %s of %s", vm, w.Name, w.Source).
				WithHint("give this one another --name and --to")
		}
		if o.Branch != "" {
			return true, banger.Errorf(banger.CodeConflict, "VM %s has workspace %s already, so its branch stays", vm, w.Name).
				WithHint("remove the workspace first, or give this one another --name and --to")
		}
		return true, syncPlace(ctx, a, &exchange.Place{Client: c, Home: homeOf(a), VM: vm, It: w})
	}
	return false, nil
}

func showPlan(a *command.App, p *workspace.Plan) error {
	t := render.NewTable(a.Stdout)
	r := p.Record
	t.Row("from", r.Source)
	t.Row("to", r.Path)
	if !r.Plain {
		t.Row("branch", orNone(r.Branch))
		t.Row("commit", orNone(r.Head))
	}
	t.Row("files", fmt.Sprint(p.Files))
	t.Row("size", banger.FormatSize(p.Bytes))
	if !r.Plain {
		t.Row("not as committed", fmt.Sprint(p.Fresh))
		t.Row("submodules", fmt.Sprint(len(r.Modules)))
	}
	return t.Flush()
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func newList(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:     "ls VM",
		Aliases: []string{"list"},
		Short:   "List the workspaces of a VM",
		Args:    command.Usage(cobra.ExactArgs(1)),
	}
	return command.Lists(a, c, command.Listing[banger.Workspace]{
		Get: func(ctx context.Context, c *client.Client, args []string) ([]banger.Workspace, error) {
			return c.Workspaces(ctx, args[0])
		},
		Name: func(w banger.Workspace) string { return w.Name },
		Head: []string{"NAME", "PATH", "SOURCE", "CREATED", "STATE"},
		Row: func(w banger.Workspace) []string {
			state := "mounted"
			switch {
			case w.Error != "":
				state = w.Error
			case w.Stored:
				state = "stored"
			}
			return []string{w.Name, w.Path, w.Source, render.Age(w.Created), state}
		},
	})
}

func newReset(a *command.App) *cobra.Command {
	var to string
	var with bool
	c := &cobra.Command{
		Use:   "reset VM[/WORKSPACE]",
		Short: "Take back all that was changed in a workspace",
		Long: `Take back all that was changed in a workspace since its baseline. With --to, the whole VM goes back to a
snapshot, and its state is kept as an automatic snapshot.`,
		Args: command.Usage(cobra.ExactArgs(1)),
		RunE: a.WithClient(func(ctx context.Context, c *client.Client, args []string) error {
			if to == "" {
				p, err := exchange.FindActive(ctx, homeOf(a), c, args[0], "reset a workspace of")
				if err != nil {
					return err
				}
				return reset(ctx, a, p)
			}
			vm, _, _ := strings.Cut(args[0], "/")
			p := a.Progress()
			defer p.Close()
			_, err := c.Restore(ctx, vm, to, with, p.Emit)
			return err
		}),
	}
	c.Flags().StringVar(&to, "to", "", "a snapshot of the VM")
	command.WithSecrets(c.Flags(), &with)
	return c
}

// reset takes back the guest's changes.
func reset(ctx context.Context, a *command.App, p *exchange.Place) error {
	inOld, err := p.Reset(ctx)
	if inOld > 0 {
		notes(a, fmt.Sprintf("%d processes are still in the tree as it was", inOld))
	}
	return err
}

func newRemove(a *command.App) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:     "rm VM[/WORKSPACE]...",
		Aliases: []string{"remove"},
		Short:   "Remove workspaces from a VM, with what was changed in them",
		Args:    command.Usage(cobra.MinimumNArgs(1)),
		RunE: a.WithClient(func(ctx context.Context, c *client.Client, args []string) error {
			for _, arg := range args {
				vm, name, _ := strings.Cut(arg, "/")
				if err := exchange.Active(ctx, c, vm, "remove a workspace of"); err != nil {
					return err
				}
				list, err := c.Workspaces(ctx, vm)
				if err != nil {
					return err
				}
				w, err := exchange.Choose(list, vm, name)
				if err != nil {
					return err
				}
				if err := c.RemoveWorkspace(ctx, vm, w.Name, force); err != nil {
					return err
				}
				a.Say(w.Name)
			}
			tidy(ctx, a, c)
			return nil
		}),
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "also while programs use it")
	return c
}

// unused is how old a record is before it may go: a workspace that is being prepared has one already.
const unused = time.Hour

// tidy removes records of workspaces that no VM has any more. A VM that does not run and a snapshot may have any of
// them, so then all records stay.
func tidy(ctx context.Context, a *command.App, c *client.Client) {
	vms, err := c.List(ctx, true, nil)
	if err != nil {
		return
	}
	if snapshots, err := c.Snapshots(ctx, ""); err != nil || len(snapshots) > 0 {
		return
	}
	has := map[string]bool{}
	for _, vm := range vms {
		if vm.State != banger.StateRunning {
			return
		}
		list, err := c.Workspaces(ctx, vm.ID)
		if err != nil {
			return
		}
		for _, w := range list {
			has[w.ID] = true
		}
	}
	for _, r := range homeOf(a).All() {
		if !has[r.ID] && time.Since(r.Created) > unused {
			homeOf(a).Remove(r.ID)
		}
	}
}
