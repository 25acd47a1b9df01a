package workspace

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/cli/snapshot"
	"banger/internal/exchange"
	"banger/internal/workspace"
)

// trySession is the name of the session in which each fork runs the command.
const trySession = "try"

// branchOf names the branch of a try.
func branchOf(vm string, n int) string { return fmt.Sprintf("banger/%s/%d", vm, n) }

func newFork(a *command.App) *cobra.Command {
	var number int
	var force, with bool
	c := &cobra.Command{
		Use:   "fork VM[/WORKSPACE] [flags] -- COMMAND...",
		Short: "Run a command in several forks of a VM, and make a branch of the result of each",
		Long: `Run a command in several forks of a VM, each in its workspace, and make a branch of what each has changed:
banger/VM/1, banger/VM/2 and so on. BANGER_TRY tells each command its number. A table says how each has ended, and how
many files and lines it has changed. The forks stay until one is kept: banger workspace keep.`,
		Example: `  banger workspace fork web -n 3 -- sh -c 'make && ./try-hard --seed $BANGER_TRY'
  banger workspace compare web
  banger workspace keep web 2`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) < 2 || c.ArgsLenAtDash() == 0 {
				return command.UsageErrorf("workspace fork needs a VM and a command (see: banger workspace fork --help)")
			}
			return of(a, func(ctx context.Context, p *exchange.Place, cmd []string) error {
				return tryAll(ctx, a, p, number, force, with, cmd)
			})(c, args)
		},
	}
	c.Flags().IntVarP(&number, "number", "n", 3, "how many forks")
	c.Flags().BoolVarP(&force, "force", "f", false, "move branches of earlier tries")
	command.WithSecrets(c.Flags(), &with)
	return c
}

// try is what became of one fork.
type try struct {
	vm      banger.VM
	branch  string
	session banger.Session
	took    time.Duration
	stat    workspace.Stat
	err     error
}

func tryAll(ctx context.Context, a *command.App, p *exchange.Place, number int, force, with bool,
	cmd []string) error {
	source, err := p.Client.Get(ctx, p.VM)
	if err != nil {
		return err
	}
	if p.Record.Plain {
		return banger.Errorf(banger.CodeInvalid,
			"workspace %s is of a directory without a repository, so tries get no branches", p.It.Name).
			WithHint("make forks and pull from one: banger fork; banger workspace pull")
	}
	for n := range number { // before any command runs
		if err := p.Home.CheckBranch(ctx, p.Record, branchOf(source.Name, n+1), force); err != nil {
			return err
		}
	}
	vms, err := snapshot.Make(ctx, a, p.Client, banger.Fork{From: source.ID, Number: number,
		Name: source.Name + "-try-{n}", WithSecrets: with})
	if err != nil {
		return err
	}
	tries := make([]try, len(vms))
	var wg sync.WaitGroup
	for i, vm := range vms {
		tries[i] = try{vm: vm, branch: branchOf(source.Name, i+1)}
		wg.Go(func() { tries[i].run(ctx, p.Client, p.It.Path, i+1, cmd) })
	}
	wg.Wait()
	for i := range tries { // git changes one repository, one branch at a time
		tries[i].export(ctx, a, p, force)
	}
	return showTries(a, tries)
}

// run runs the command in a fork, to its end.
func (t *try) run(ctx context.Context, c *client.Client, dir string, n int, cmd []string) {
	e := banger.Exec{Args: cmd, Dir: dir, Env: []string{"BANGER_TRY=" + strconv.Itoa(n)}}
	t.session, t.took, t.err = snapshot.RunIn(ctx, c, t.vm.ID, banger.SessionSpec{Name: trySession, Command: e})
}

// export makes a branch of what the command has changed.
func (t *try) export(ctx context.Context, a *command.App, p *exchange.Place, force bool) {
	if t.err != nil {
		return
	}
	var fork *exchange.Place
	if fork, t.err = exchange.Find(ctx, homeOf(a), p.Client, t.vm.ID+"/"+p.It.Name); t.err != nil {
		return
	}
	if _, t.err = exportBranch(ctx, a, fork, t.branch, force); t.err == nil {
		t.stat, t.err = p.Home.Stat(ctx, p.Record, t.branch)
	}
}

func showTries(a *command.App, tries []try) error {
	table := render.NewTable(a.Stdout, "BRANCH", "VM", "EXIT", "TIME", "FILES", "LINES", "OUTPUT")
	failed := false
	for _, t := range tries {
		row := []string{"-", t.vm.Name, "-", "-", "-", "-", "banger logs --session " + trySession + " " + t.vm.Name}
		if t.session.Exit != nil {
			row[2], row[3] = fmt.Sprint(t.session.Exit.Status()), fmt.Sprintf("%.1f s", t.took.Seconds())
		}
		if t.err == nil {
			row[0], row[4], row[5] = t.branch, fmt.Sprint(t.stat.Files), fmt.Sprintf("+%d -%d", t.stat.Added, t.stat.Removed)
		}
		table.Row(row...)
		failed = failed || t.err != nil || t.session.Exit == nil || t.session.Exit.Status() != 0
	}
	err := table.Flush()
	for _, t := range tries {
		if t.err != nil {
			notes(a, t.vm.Name+": "+t.err.Error())
		}
	}
	if err == nil && failed {
		return &command.ExitError{Code: command.ExitFailed}
	}
	return err
}

func newCompare(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:   "compare VM[/WORKSPACE]",
		Short: "Show what the tries of workspace fork have changed, beside each other",
		Args:  command.Usage(cobra.ExactArgs(1)),
		RunE: of(a, func(ctx context.Context, p *exchange.Place, _ []string) error {
			vm, err := p.Client.Get(ctx, p.VM)
			if err != nil {
				return err
			}
			branches, err := p.Home.Branches(ctx, p.Record, "banger/"+vm.Name+"/")
			if err != nil {
				return err
			}
			table := render.NewTable(a.Stdout, "BRANCH", "COMMITS", "FILES", "LINES", "ONLY HERE")
			for _, b := range branches {
				table.Row(b.Name, fmt.Sprint(b.Commits), fmt.Sprint(b.Files), fmt.Sprintf("+%d -%d", b.Added, b.Removed),
					strings.Join(b.Only, " "))
			}
			return table.Flush()
		}),
	}
}

func newKeep(a *command.App) *cobra.Command {
	var checkout, yes bool
	c := &cobra.Command{
		Use:   "keep VM[/WORKSPACE] NUMBER",
		Short: "Merge the branch of one try, and drop the other tries",
		Long: `Merge the branch of one try into this host's branch, or check it out, and then drop all forks of the tries and
the branches of the others. Your own git does this, with your configuration and your hooks. If it fails, nothing is
dropped. Files that tools of this host obey when the tree is opened are listed first, and need a yes.`,
		Args: command.Usage(cobra.ExactArgs(2)),
		RunE: of(a, func(ctx context.Context, p *exchange.Place, args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 1 {
				return command.UsageErrorf("%q is not the number of a try", args[0])
			}
			return keep(ctx, a, p, n, checkout, yes)
		}),
	}
	c.Flags().BoolVar(&checkout, "checkout", false, "check the branch out instead of merging it")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "also take files that tools of this host obey")
	return c
}

func keep(ctx context.Context, a *command.App, p *exchange.Place, n int, checkout, yes bool) error {
	vm, err := p.Client.Get(ctx, p.VM)
	if err != nil {
		return err
	}
	branch := branchOf(vm.Name, n)
	hazards, err := p.Home.BranchHazards(ctx, p.Record, branch)
	if err != nil {
		return err
	}
	if warn(a, hazards, "look at these files before you take the branch"); len(hazards) > 0 && !yes {
		flag := "--yes, when you have looked at: git diff HEAD..." + branch
		if err := a.Confirm("Take the branch, with these files?", flag); err != nil {
			return err
		}
	}
	if err := p.Home.Take(ctx, p.Record, branch, checkout, a.Stdout, a.Stderr); err != nil {
		return err
	}
	others, err := p.Home.Branches(ctx, p.Record, "banger/"+vm.Name+"/")
	if err != nil {
		return err
	}
	for _, b := range others {
		if b.Name != branch || !checkout {
			err = errors.Join(err, p.Home.RemoveBranch(ctx, p.Record, b.Name))
		}
	}
	return errors.Join(err, dropTries(ctx, a, p.Client, vm))
}

// dropTries removes the forks that tries ran in.
func dropTries(ctx context.Context, a *command.App, c *client.Client, source banger.VM) error {
	list, err := c.List(ctx, true, nil)
	if err != nil {
		return err
	}
	for _, vm := range list {
		number, ok := strings.CutPrefix(vm.Name, source.Name+"-try-")
		if _, nerr := strconv.Atoi(number); !ok || nerr != nil || vm.ForkOf != source.ID { // a user may use such a name
			continue
		}
		if rerr := c.Remove(ctx, vm.ID, true); rerr != nil {
			err = errors.Join(err, rerr)
			continue
		}
		a.Say(vm.Name)
	}
	return err
}
