// Package config has the commands for what a user and a repository want of VMs: it shows what counts, edits the user's
// file, and asks whether a repository's file may be obeyed.
//
// It must not know how the files are read, nor what a VM does with them.
package config

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/config"
	"banger/internal/tooling"
)

// New returns the family of commands for configuration.
func New(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Show and edit what VMs get, and review what a repository wants",
		Long: `Show and edit what VMs get where no flag says it. The user's file is ~/.config/banger/config.toml.
A repository may have a banger.toml in its root. It is obeyed only after you have allowed it,
and again after each change.`,
	}
	c.AddCommand(newShow(a), newEdit(a), newAllow(a), newDeny(a))
	return c
}

// repository is a repository whose file may be obeyed.
type repository struct {
	root    string
	file    string          // the path of its file
	project *config.Project // nil without a file
	raw     []byte          // the text of the file, which a user reviews
	verdict config.Verdict  // "" without a file
}

// open reads the file of the repository around a directory, and what the user has said about it.
func open(a *command.App, dir string) (r repository, err error) {
	if r.root, err = tooling.Root(dir); err != nil {
		return r, err
	}
	r.file = filepath.Join(r.root, config.ProjectFile)
	if r.project, r.raw, err = config.LoadProject(r.root); err == nil && r.project != nil {
		r.verdict = reviews(a).State(r.file, r.raw)
	}
	return r, err
}

func reviews(a *command.App) config.Reviews {
	return config.Reviews{Dir: filepath.Join(a.Paths.State, "reviews")}
}

// path returns the argument of a command, or the working directory.
func path(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	return "."
}

// shown is what config show prints as JSON.
type shown struct {
	Project  *shownProject    `json:"project,omitempty"`
	Settings []config.Setting `json:"settings"`
}

type shownProject struct {
	File  string         `json:"file"`
	State config.Verdict `json:"state"` // it is obeyed if it is allowed
}

func newShow(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "show [PATH]",
		Short: "Show what counts in a repository, and where that is written",
		Long: `Show what counts for VMs of the repository around PATH: what its banger.toml says if you have allowed it,
or else your config.toml, or else what is built in. A flag of a command comes before all of these.`,
		Args: command.Usage(cobra.MaximumNArgs(1)),
	}
	forWork := c.Flags().Bool("work", false, "what counts for banger work, task and agent")
	origin := c.Flags().Bool("origin", false, "also where each value is written")
	asJSON := command.TableOrJSON(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		json, err := asJSON()
		if err != nil {
			return err
		}
		user, err := config.LoadUser(a.Paths.Config)
		if err != nil {
			return err
		}
		r, err := open(a, path(args))
		if err != nil {
			return err
		}
		project := r.project
		if r.verdict != config.Allowed {
			project = nil
		}
		base := config.BuiltIn()
		if *forWork {
			base = config.ForWork()
		}
		out := shown{Settings: config.Merge(base, user, project).Settings}
		if r.verdict != "" {
			out.Project = &shownProject{r.file, r.verdict}
		}
		if json {
			return render.JSON(a.Stdout, out)
		}
		return show(a, r, out.Settings, *origin)
	}
	return c
}

// show prints settings as a table, and on stderr whether the repository's file is obeyed.
func show(a *command.App, r repository, settings []config.Setting, origin bool) error {
	head := []string{"KEY", "VALUE"}
	if origin {
		head = append(head, "ORIGIN")
	}
	t := render.NewTable(a.Stdout, head...)
	for _, s := range settings {
		row := []string{s.Key, s.Value}
		if origin {
			row = append(row, s.Origin)
		}
		t.Row(row...)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.verdict != "" && !a.Quiet {
		render.Line(a.Stderr, "banger: "+r.obedience())
	}
	return nil
}

// obedience says whether the repository's file is obeyed, and why not.
func (r repository) obedience() string {
	switch r.verdict {
	case config.Allowed:
		return r.file + " is obeyed"
	case config.Denied:
		return fmt.Sprintf("%s is not obeyed, because you have denied it (to obey it: %s)", r.file, r.allow())
	case config.Changed:
		return fmt.Sprintf("%s is not obeyed, because it has changed (to review it: %s)", r.file, r.allow())
	}
	return fmt.Sprintf("%s is not obeyed, because you have not reviewed it (to review it: %s)", r.file, r.allow())
}

// allow returns the command that allows the file.
func (r repository) allow() string { return "banger config allow " + r.root }
