package work

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/cli/background"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/cli/session"
	"banger/internal/config"
	"banger/internal/nearest"
)

// NewTask returns the command task.
func NewTask(a *command.App) *cobra.Command {
	var o flags
	c := &cobra.Command{
		Use:   "task [flags] [TASK] [ARGUMENTS...]",
		Short: "Run a task of a repository's banger.toml in its VM",
		Long: `Run a task that the banger.toml of the repository around this directory names, in the VM of the repository
and the branch (see: banger work). The ARGUMENTS come behind the task's own. Without a TASK, the tasks are listed. The
exit code is that of the task.`,
		Example: "  banger task\n  banger task test",
	}
	path := "."
	c.RunE = func(c *cobra.Command, args []string) error {
		return task(c, a, o, path, args)
	}
	fs := c.Flags()
	fs.SetInterspersed(false)
	fs.StringVarP(&path, "directory", "C", ".", "the repository is around this directory")
	fs.BoolVar(&o.noBootstrap, "no-bootstrap", false, "install no tools")
	fs.StringVar(&o.detachKeys, "detach-keys", session.DefaultDetachKeys, background.KeysUsage)
	return c
}

func task(c *cobra.Command, a *command.App, o flags, path string, args []string) error {
	ctx := c.Context()
	keys, err := session.ParseDetachKeys(o.detachKeys)
	if err != nil {
		return err
	}
	r := Request{Path: path, Bootstrap: !o.noBootstrap}
	r.Options.StopTimeout = -1
	h, err := newHome(ctx, a, r)
	if err != nil {
		return err
	}
	if h.project == nil || len(h.project.Tasks) == 0 {
		return banger.Errorf(banger.CodeNotFound, "there is no %s with tasks in %s", config.ProjectFile, h.source).
			WithHint("write them as [tasks.NAME]; see: banger config show")
	}
	names := slices.Sorted(maps.Keys(h.project.Tasks))
	if len(args) == 0 {
		t := render.NewTable(a.Stdout, "TASK", "DESCRIPTION", "COMMAND")
		for _, name := range names {
			one := h.project.Tasks[name]
			t.Row(name, one.Description, strings.Join(one.Command.Args, " "))
		}
		return t.Flush()
	}
	one, ok := h.project.Tasks[args[0]]
	if !ok {
		hint := "there are: " + strings.Join(names, ", ")
		if near := nearest.Word(args[0], names); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		return banger.Errorf(banger.CodeNotFound, "there is no task %.80q in %s", args[0], config.ProjectFile).
			WithHint("%s", hint)
	}
	client, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	vm, err := Enter(ctx, a, client, r)
	if err != nil {
		return err
	}
	e := inWorkspace(one.Command)
	e.Args = withArguments(e.Args, args[1:])
	s := r.Session(a)
	e.Stdin, e.TTY = s.Command.Stdin, s.Command.TTY
	_, err = Session(ctx, a, client, vm, banger.SessionSpec{Command: e}, keys)
	return errors.Join(err, Leave(a, client, vm, r, false))
}

// withArguments adds a user's arguments to a command. A text that a shell runs gets them as its parameters.
func withArguments(args, more []string) []string {
	if len(more) == 0 || len(args) != 3 || args[1] != "-c" {
		return slices.Concat(args, more)
	}
	return slices.Concat([]string{args[0], args[1], args[2] + ` "$@"`, args[0]}, more)
}
