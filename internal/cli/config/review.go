package config

import (
	"context"
	"errors"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/config"
)

// Reviewed returns what the file of the repository at root wants, if it may be obeyed. On a terminal it shows a file
// that is new or has changed, and asks. Without a terminal such a file is an error. It returns nil for a repository
// without a file, and for a file that the user has denied, which it says on stderr.
func Reviewed(ctx context.Context, a *command.App, root string) (*config.Project, error) {
	r, err := open(a, root)
	if err != nil {
		return nil, err
	}
	switch r.verdict {
	case "":
		return nil, nil
	case config.Allowed:
		return r.project, nil
	case config.Denied:
		if !a.Quiet {
			render.Line(a.Stderr, "banger: "+r.obedience())
		}
		return nil, nil
	}
	if !a.Interactive() {
		why := "you have not reviewed it"
		if r.verdict == config.Changed {
			why = "it has changed since you allowed it"
		}
		return nil, banger.Errorf(banger.CodeDenied, "%s is not obeyed, because %s", r.file, why).
			WithHint("review it: %s", r.allow())
	}
	r.print(a)
	if !a.Ask("Obey this file?") {
		return nil, banger.Errorf(banger.CodeDenied, "%s was not allowed", r.file).
			WithHint("to go on without it: banger config deny %s", r.root)
	}
	return r.project, r.write(ctx, a, config.Reviews.Allow)
}

// Obeyed returns what the file of the repository around a directory wants, if the user has allowed it. It asks nothing.
func Obeyed(a *command.App, dir string) (*config.Project, error) {
	r, err := open(a, dir)
	if err != nil || r.verdict != config.Allowed {
		return nil, err
	}
	return r.project, nil
}

// print shows the file, or what has changed of it, on stderr. All of it is printable.
func (r repository) print(a *command.App) {
	show := func(text string) {
		for line := range strings.Lines(text) {
			render.Line(a.Stderr, strings.TrimSuffix(line, "\n"))
		}
	}
	before := reviews(a).Previous(r.file)
	if before == nil {
		show(r.file + " says:\n\n" + string(r.raw) + "\n")
		return
	}
	changes := udiff.Unified("allowed", "now", string(before), string(r.raw))
	show(r.file + " has changed since you allowed it:\n\n" + changes + "\n")
}

// write writes down what the user has said about the content that was shown.
func (r repository) write(ctx context.Context, a *command.App,
	say func(r config.Reviews, path string, raw []byte) error) error {
	release, err := a.Daemon.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	return say(reviews(a), r.file, r.raw)
}

// mustOpen is open for a repository that must have a file.
func mustOpen(a *command.App, dir string) (repository, error) {
	r, err := open(a, dir)
	if err == nil && r.verdict == "" {
		err = banger.Errorf(banger.CodeNotFound, "there is no %s in %s", config.ProjectFile, r.root).
			WithHint("give a directory of a repository that has one")
	}
	return r, err
}

func newAllow(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "allow [PATH]",
		Short: "Review the banger.toml of a repository, and obey it",
		Long: `Show the banger.toml of the repository around PATH, or what has changed of it since you allowed it, and ask
whether it may be obeyed. It may say which image a VM runs, what the VM may reach and which commands run in it.
When the file changes, it must be allowed again.`,
		Args: command.Usage(cobra.MaximumNArgs(1)),
	}
	yes := c.Flags().BoolP("yes", "y", false, "do not ask")
	c.RunE = func(c *cobra.Command, args []string) error {
		r, err := mustOpen(a, path(args))
		if err != nil {
			return err
		}
		if r.verdict == config.Allowed {
			a.Say(r.file + " is allowed already")
			return nil
		}
		if !*yes && !a.Interactive() {
			return banger.Errorf(banger.CodeInvalid, "this needs a yes, and stdin is not a terminal").
				WithHint("use --yes when you have read %s", r.file)
		}
		if !*yes || !a.Quiet {
			r.print(a)
		}
		if !*yes && !a.Ask("Obey this file?") {
			return &command.ExitError{Code: command.ExitFailed, Err: errors.New("the file was not allowed")}
		}
		if err := r.write(c.Context(), a, config.Reviews.Allow); err != nil {
			return err
		}
		a.Say(r.file + " is obeyed")
		return nil
	}
	return c
}

func newDeny(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:   "deny [PATH]",
		Short: "Go on without the banger.toml of a repository",
		Args:  command.Usage(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := mustOpen(a, path(args))
			if err != nil {
				return err
			}
			if err := r.write(c.Context(), a, config.Reviews.Deny); err != nil {
				return err
			}
			a.Say(r.file + " is not obeyed")
			return nil
		},
	}
}
