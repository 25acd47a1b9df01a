package snapshot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/format"
	"banger/internal/cli/render"
)

// session is the name of the session in which each fork runs the command of the fork.
const session = "fork"

// NewFork returns the command fork.
func NewFork(a *command.App) *cobra.Command {
	var f banger.Fork
	var changes bool
	c := &cobra.Command{
		Use:   "fork [flags] SOURCE [--] [COMMAND...]",
		Short: "Make VMs that go on from one instant of a VM, or from a snapshot",
		Long: `Make VMs that go on from one instant of a VM, or from a snapshot, and print their names. Each has all
programs of the source as they were, and a name, an id, addresses, keys and randomness of its own. Ports that the source
publishes move to free ones. Sessions go on in each; commands that belong to a client of the source are hung up.

With a command, each fork runs it as its session "fork", and a table says how each has ended and how many files
differ since the fork. That takes a comparison for each, as banger diff makes it; --changes=false leaves it out.`,
		Example: `  banger fork web
  banger fork web -n 3 --name try-{n} -- make test`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 || c.ArgsLenAtDash() == 0 {
				return command.UsageErrorf("fork needs a VM or a snapshot (see: banger fork --help)")
			}
			f.From = args[0]
			if err := f.Check(); err != nil {
				return err
			}
			return run(c.Context(), a, f, args[1:], changes)
		},
	}
	fs := c.Flags()
	fs.IntVarP(&f.Number, "number", "n", 1, "how many VMs")
	fs.StringVar(&f.Name, "name", "",
		"name of the VM; a pattern with {n} for several; default: the source's with a number")
	fs.BoolVar(&f.AutoRemove, "rm", false, "remove each when it ends")
	command.WithSecrets(fs, &f.WithSecrets)
	fs.BoolVar(&changes, "changes", true, "count the files that the command of each fork has changed")
	c.AddCommand(newRemoveForks(a))
	return c
}

func newRemoveForks(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:     "rm VM",
		Aliases: []string{"remove"},
		Short:   "Remove the forks of a VM, with all that is in them, and print their names",
		Args:    command.Usage(cobra.ExactArgs(1)),
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
			removed, err := client.RemoveForks(ctx, args[0])
			for _, vm := range removed {
				a.Say(vm.Name)
			}
			return err
		}),
	}
}

// NewKeep returns the command keep.
func NewKeep(a *command.App) *cobra.Command {
	var with bool
	c := &cobra.Command{
		Use:   "keep FORK",
		Short: "Put a fork in the place of the VM that it was made of",
		Long: `Put a fork in the place of the VM that it was made of: under its name, with its published ports. That VM goes,
and its state is kept as an automatic snapshot. Other forks stay; banger fork rm drops them.`,
		Example: `  banger fork web -n 3 --name try-{n} -- make test
  banger keep try-2
  banger fork rm web`,
		Args: command.Usage(cobra.ExactArgs(1)),
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
			p := a.Progress()
			vm, err := client.Keep(ctx, args[0], with, p.Emit)
			p.Close()
			if err == nil {
				a.Say(vm.Name)
			}
			return err
		}),
	}
	command.WithSecrets(c.Flags(), &with)
	return c
}

func run(ctx context.Context, a *command.App, f banger.Fork, args []string, changes bool) error {
	client, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	vms, err := Make(ctx, a, client, f)
	if len(args) == 0 {
		for _, vm := range vms {
			a.Say(strings.TrimSpace(vm.Name + " " + format.Ports(vm))) // where its ports have moved
		}
	}
	if err != nil || len(args) == 0 {
		return err
	}
	return each(ctx, a, client, vms, args, changes)
}

// Make makes the forks, with progress. After an error it returns those that were made.
func Make(ctx context.Context, a *command.App, client *client.Client, f banger.Fork) ([]banger.VM, error) {
	p := a.Progress()
	defer p.Close()
	return client.Fork(ctx, f, p.Emit)
}

// result is how the command of a fork has ended.
type result struct {
	session  banger.Session
	took     time.Duration
	err      error
	changed  int   // files that differ since the fork
	compared error // why changed is not known
}

// errNotCounted is the state of a result before its files are counted.
var errNotCounted = errors.New("not counted")

// each runs a command in each VM, and prints a table. The error is about the first that failed.
func each(ctx context.Context, a *command.App, client *client.Client, vms []banger.VM, args []string,
	changes bool) error {
	results := make([]result, len(vms))
	var wg sync.WaitGroup
	for i, vm := range vms {
		wg.Go(func() {
			results[i] = runIn(ctx, client, vm.ID, args)
			results[i].compared = errNotCounted
			if changes {
				results[i].count(ctx, client, vm.ID)
			}
		})
	}
	wg.Wait()
	failed := false
	table := render.NewTable(a.Stdout, "NAME", "EXIT", "TIME", "CHANGED", "OUTPUT")
	for i, r := range results {
		table.Row(r.row(vms[i].Name)...)
		failed = failed || r.err != nil || r.session.Exit == nil || r.session.Exit.Status() != 0
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for i, r := range results {
		if r.compared != nil && changes && r.err == nil {
			render.Line(a.Stderr, "banger: the files that "+vms[i].Name+" has changed were not counted: "+r.compared.Error())
		}
	}
	if failed {
		return &command.ExitError{Code: command.ExitFailed}
	}
	return nil
}

// row returns the line of the table for the fork of this name.
func (r result) row(name string) []string {
	row := []string{name, "-", "-", "-", "banger logs --session " + session + " " + name}
	switch {
	case r.err != nil:
		row[4] = r.err.Error()
	case r.session.Exit == nil:
		row[4] = r.session.Reason
	default:
		row[1], row[2] = fmt.Sprint(r.session.Exit.Status()), fmt.Sprintf("%.1f s", r.took.Seconds())
	}
	if r.compared == nil {
		row[3] = fmt.Sprint(r.changed)
	}
	return row
}

// count counts the files that differ since the fork, if a command ran in it.
func (r *result) count(ctx context.Context, client *client.Client, vm string) {
	if r.err != nil {
		return
	}
	var done banger.Compared
	done, r.compared = client.Compare(ctx, banger.Comparison{To: vm}, func(banger.Event) {}, func(banger.FileChange) {})
	r.changed = done.Changes
}

// runIn runs a command as a session and waits for its end.
func runIn(ctx context.Context, client *client.Client, vm string, args []string) (r result) {
	r.session, r.took, r.err = RunIn(ctx, client, vm, banger.SessionSpec{Name: session, Command: banger.Exec{Args: args}})
	return r
}

// RunIn starts a session in a VM, and returns the session when it has ended, and how long that took.
func RunIn(ctx context.Context, client *client.Client, vm string, spec banger.SessionSpec) (s banger.Session,
	took time.Duration, err error) {
	began := time.Now()
	if _, err = client.StartSession(ctx, vm, spec); err == nil {
		s, err = client.WaitSession(ctx, vm, spec.Name)
	}
	return s, time.Since(began), err
}
