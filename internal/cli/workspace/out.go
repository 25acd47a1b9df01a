package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/exchange"
	"banger/internal/text"
	"banger/internal/tree"
	"banger/internal/workspace"
)

// status is what the command status shows.
type status struct {
	Workspace string              `json:"workspace"`
	Path      string              `json:"path"`
	Source    string              `json:"source"`
	Guest     []workspace.Change  `json:"guest"` // changes since the baseline
	Commits   int                 `json:"commits"`
	Branch    string              `json:"branch,omitempty"`
	Host      workspace.HostState `json:"host"`
}

func newStatus(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "status VM[/WORKSPACE]",
		Short: "Show what has changed since the baseline, in the VM and on this host",
		Args:  command.Usage(cobra.ExactArgs(1)),
	}
	asJSON := command.TableOrJSON(c)
	c.RunE = checked(func() error { _, err := asJSON(); return err }, of(a, func(ctx context.Context, p *exchange.Place,
		_ []string) error {
		inJSON, _ := asJSON()
		capture, err := p.Capture(ctx, exchange.All)
		if err != nil {
			return err
		}
		defer capture.Close()
		s := status{Workspace: p.It.Name, Path: p.It.Path, Source: p.Record.Source, Branch: capture.Branch}
		if s.Guest, err = capture.Changes(ctx); err != nil {
			return err
		}
		if s.Commits, err = capture.Commits(ctx); err != nil {
			return err
		}
		if s.Host, err = p.Home.Host(ctx, p.Record); err != nil {
			return err
		}
		notes(a, capture.Notes...)
		if inJSON {
			return render.JSON(a.Stdout, s)
		}
		s.show(a)
		return nil
	}))
	return c
}

// checked returns a RunFunc that calls run if check finds nothing wrong with the flags.
func checked(check func() error, run command.RunFunc) command.RunFunc {
	return func(c *cobra.Command, args []string) error {
		if err := check(); err != nil {
			return err
		}
		return run(c, args)
	}
}

func (s status) show(a *command.App) {
	a.Say(fmt.Sprintf("workspace %s at %s, of %s", s.Workspace, s.Path, s.Source))
	switch {
	case s.Commits == 1:
		a.Say(fmt.Sprintf("the VM has 1 new commit on %s", orNone(s.Branch)))
	case s.Commits > 1:
		a.Say(fmt.Sprintf("the VM has %d new commits on %s", s.Commits, orNone(s.Branch)))
	}
	if s.Host.Moved {
		a.Say("this host's HEAD is another commit now")
	}
	side := func(who string, changes []workspace.Change) {
		if len(changes) == 0 {
			a.Say(who + ": nothing changed")
			return
		}
		a.Say(who + ":")
		lines(a.Stdout, changes)
	}
	side("in the VM", s.Guest)
	side("on this host", s.Host.Changes)
}

// lines shows changes, one a line.
func lines(w io.Writer, changes []workspace.Change) {
	for _, c := range changes {
		line := c.Status[:1] + " " + tree.Quoted(c.Path)
		if c.From != "" {
			line = c.Status[:1] + " " + tree.Quoted(c.From) + " -> " + tree.Quoted(c.Path)
		}
		render.Line(w, line)
	}
}

func newDiff(a *command.App) *cobra.Command {
	var patch, stat, names bool
	c := &cobra.Command{
		Use:   "diff VM[/WORKSPACE]",
		Short: "Show what the VM has changed since the baseline",
		Long: `Show what the VM has changed since the baseline: commits, what is staged, the working tree, and files that git
does not track and does not ignore. The VM's index and branches stay as they are.`,
		Args: command.Usage(cobra.ExactArgs(1)),
		RunE: checked(func() error {
			if patch && stat || patch && names || stat && names {
				return command.UsageErrorf("only one of --patch, --stat and --name-only says what is shown")
			}
			return nil
		}, of(a, func(ctx context.Context, p *exchange.Place, _ []string) error {
			capture, err := p.Capture(ctx, exchange.WorkingTree)
			if err != nil {
				return err
			}
			defer capture.Close()
			notes(a, capture.Notes...)
			if patch || stat {
				w, flush := render.Printable(a.Stdout)
				return errors.Join(capture.Patch(ctx, w, stat), flush())
			}
			changes, err := capture.Changes(ctx)
			if err != nil {
				return err
			}
			if names {
				for _, c := range changes {
					a.Say(tree.Quoted(c.Path))
				}
				return nil
			}
			lines(a.Stdout, changes)
			return nil
		})),
	}
	fs := c.Flags()
	fs.BoolVarP(&patch, "patch", "p", false, "show a patch")
	fs.BoolVar(&stat, "stat", false, "show how many lines of each file differ")
	fs.BoolVar(&names, "name-only", false, "show the names only")
	return c
}

func newExport(a *command.App) *cobra.Command {
	var branch, output string
	var force bool
	c := &cobra.Command{
		Use:   "export VM[/WORKSPACE]",
		Short: "Bring the VM's changes home, as a patch or as a branch",
		Long: `Bring the VM's changes home. As a patch on stdout, or in a file, that git apply takes, with binary files. With
--branch, as a branch of this host's repository: the VM's commits with their authors, and one more of yours with what
was not committed. The working tree, the index, HEAD and the configuration stay as they are. Git checks all objects
before the branch is made.`,
		Example: `  banger workspace export web > changes.patch
  banger workspace export web --branch from-web && git diff main from-web`,
		Args: command.Usage(cobra.ExactArgs(1)),
		RunE: checked(func() error {
			if branch != "" && output != "" {
				return command.UsageErrorf("--branch and --output are two ways out: give one")
			}
			return nil
		}, of(a, func(ctx context.Context, p *exchange.Place, _ []string) error {
			if branch == "" {
				return exportPatch(ctx, a, p, output)
			}
			e, err := exportBranch(ctx, a, p, branch, force)
			if err == nil {
				a.Say(e.Branch)
			}
			return err
		})),
	}
	fs := c.Flags()
	fs.StringVar(&branch, "branch", "", "make this branch")
	fs.StringVarP(&output, "output", "o", "", "write the patch to a file")
	fs.BoolVarP(&force, "force", "f", false, "move the branch if it exists")
	return c
}

func exportPatch(ctx context.Context, a *command.App, p *exchange.Place, output string) error {
	capture, err := p.Capture(ctx, exchange.WorkingTree)
	if err != nil {
		return err
	}
	defer capture.Close()
	notes(a, capture.Notes...)
	if output == "" {
		w, flush := render.Printable(a.Stdout)
		return errors.Join(capture.Patch(ctx, w, false), flush())
	}
	f, err := os.Create(output)
	if err != nil {
		return banger.Errorf(banger.CodeDisk, "writing %s: %w", output, banger.Cause(err))
	}
	err = capture.Patch(ctx, f, false)
	if cerr := f.Close(); err == nil && cerr != nil {
		err = banger.Errorf(banger.CodeDisk, "writing %s: %w", output, banger.Cause(cerr))
	}
	return err
}

// exportBranch makes a branch, and says which of its files tools obey.
func exportBranch(ctx context.Context, a *command.App, p *exchange.Place, branch string,
	force bool) (e workspace.Exported, err error) {
	capture, err := p.Capture(ctx, exchange.All)
	if err != nil {
		return e, err
	}
	defer capture.Close()
	notes(a, capture.Notes...)
	hazards, err := capture.Hazards(ctx)
	if err != nil {
		return e, err
	}
	warn(a, hazards, "who checks the branch out should look at these files first")
	if e, err = capture.Export(ctx, branch, force); err != nil {
		return e, err
	}
	for _, module := range e.Modules {
		notes(a, "the changes in submodule "+module+" are not in the branch; bring them home by: banger "+
			"workspace pull "+p.VM)
	}
	return e, nil
}

// warn lists files that tools of this host obey.
func warn(a *command.App, hazards []workspace.Hazard, what string) {
	for _, h := range hazards {
		notes(a, tree.Quoted(h.Path)+": "+h.Why)
	}
	if len(hazards) > 0 {
		notes(a, what)
	}
}

func newPull(a *command.App) *cobra.Command {
	var yes, dryRun bool
	c := &cobra.Command{
		Use:   "pull VM[/WORKSPACE]",
		Short: "Merge the VM's changes into this host's working tree",
		Long: `Merge the VM's changes into this host's working tree, or change nothing and list what conflicts. Files that
tools of this host obey when the tree is opened, such as tasks of editors and scripts of packages, are listed first, and
need a yes. The index, HEAD and branches stay as they are.`,
		Args: command.Usage(cobra.ExactArgs(1)),
		RunE: of(a, func(ctx context.Context, p *exchange.Place, _ []string) error {
			capture, err := p.Capture(ctx, exchange.WorkingTree)
			if err != nil {
				return err
			}
			defer capture.Close()
			return pull(ctx, a, capture, yes, dryRun)
		}),
	}
	fs := c.Flags()
	fs.BoolVarP(&yes, "yes", "y", false, "also change files that tools of this host obey")
	fs.BoolVar(&dryRun, "dry-run", false, "only show what would change")
	return c
}

// pull merges a capture into the working tree of this host.
func pull(ctx context.Context, a *command.App, capture *workspace.Capture, yes, dryRun bool) error {
	notes(a, capture.Notes...)
	p, err := capture.Pull(ctx)
	if err != nil {
		return err
	}
	if len(p.Conflicts) > 0 {
		return conflicting(a, p.Conflicts, "this host's working tree")
	}
	lines(a.Stdout, p.Changes)
	if dryRun || len(p.Changes) == 0 {
		return nil
	}
	if warn(a, p.Hazards, "look at these files before you open the tree"); len(p.Hazards) > 0 && !yes {
		question := fmt.Sprintf("Change %d files, with these among them?", len(p.Changes))
		if err := a.Confirm(question, "--yes, when you have looked at: banger workspace diff -p"); err != nil {
			return err
		}
	}
	return p.Apply(ctx)
}

// conflicting lists conflicts, and returns the error for them.
func conflicting(a *command.App, list []tree.Conflict, where string) error {
	for _, c := range list {
		render.Line(a.Stderr, "conflict: "+tree.Quoted(c.Path)+": "+c.Why)
	}
	return banger.Errorf(banger.CodeConflict, "%d files conflict, so %s was not changed", len(list), where).
		WithHint("take the changes as a branch and merge that: banger workspace export VM --branch NAME")
}

// notes tells the user what was left out, and other remarks.
func notes(a *command.App, list ...string) {
	for _, note := range list {
		render.Line(a.Stderr, "banger: "+strings.TrimSpace(text.Line(note)))
	}
}
