// Package diff has the command that shows which files differ between VMs. It must not know how they are compared.
package diff

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/text"
)

// options are the flags of the command.
type options struct{ patch, stat, names bool }

// New returns the command diff.
func New(a *command.App) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "diff SOURCE [SOURCE]",
		Short: "Show which files differ between two VMs, or between a VM and what it came from",
		Args:  command.Usage(cobra.RangeArgs(1, 2)),
		Long: `Show which files differ between two VMs of one image, or between a VM and what it came from: its latest
snapshot, the VM of which it is a fork, or its image. A source is a VM or a snapshot. Of two, the first is what was
before.

A line has A for a file that was added, D for one that is gone, and M for one whose content, mode, owner, type, target
or extended attributes differ. /etc/hostname, /etc/hosts, /etc/resolv.conf and what is mounted are left out. A VM that
runs goes on after it has stood still for a moment. Another VM, without a network, reads the disks.`,
		Example: `  banger diff web
  banger diff try-1 try-2 -p > one-to-the-other.patch
  banger diff before web --stat`,
	}
	fs := c.Flags()
	fs.BoolVarP(&o.patch, "patch", "p", false, "also show how text differs, as patch -p1 takes it")
	fs.BoolVar(&o.stat, "stat", false, "show how many lines of each file differ")
	fs.BoolVar(&o.names, "name-only", false, "show the names only")
	parsed := command.Formats(c)
	fs.Lookup("format").Usage = "json: an object per line; or a template: '{{.path}}'"
	c.RunE = a.WithFormat(parsed, func(ctx context.Context, client *client.Client, f command.Format,
		args []string) error {
		s, err := o.shows(a, f)
		if err != nil {
			return err
		}
		return run(ctx, a, client, o.asks(args), s)
	})
	return c
}

// asks returns what the arguments ask for.
func (o options) asks(args []string) banger.Comparison {
	what := banger.Comparison{To: args[len(args)-1], Patch: o.patch || o.stat}
	if len(args) == 2 {
		what.From = args[0]
	}
	return what
}

// shows returns how the changes are shown.
func (o options) shows(a *command.App, f command.Format) (shower, error) {
	asked := 0
	for _, is := range []bool{o.stat, o.names, f.Template != nil, f.JSON} {
		if is {
			asked++
		}
	}
	if asked > 1 || o.patch && asked > 0 && !f.JSON {
		return nil, command.UsageErrorf("only one of --patch, --stat, --name-only and --format says what is shown; " +
			"--format json shows patches too")
	}
	switch {
	case o.stat:
		return &stat{w: a.Stdout}, nil
	case o.names:
		return each(func(c banger.FileChange) error { return say(a.Stdout, pathOf(c)) }), nil
	case f.JSON:
		return each(func(c banger.FileChange) error { return text.WriteJSON(a.Stdout, c, "") }), nil
	case f.Template != nil:
		return each(func(c banger.FileChange) error { return command.Write(a, f, []banger.FileChange{c}, nil) }), nil
	case o.patch:
		return patches{a.Stdout}, nil
	}
	return each(func(c banger.FileChange) error { return say(a.Stdout, line(c)) }), nil
}

// run shows what differs.
func run(ctx context.Context, a *command.App, client *client.Client, what banger.Comparison, s shower) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := a.Progress()
	defer p.Close()
	var failed error
	done, err := client.Compare(ctx, what, p.Emit, func(c banger.FileChange) {
		if failed == nil {
			if failed = s.show(c); failed != nil { // the reader has gone
				cancel()
			}
		}
	})
	p.Close()
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return err
	}
	if err := s.end(); err != nil {
		return err
	}
	if !a.Quiet {
		words := "differs from %s in " + number(done.Changes, "file")
		if done.Changes == 0 {
			words = "does not differ from %s"
		}
		fmt.Fprintf(a.Stderr, "banger: %s "+words+"\n", text.Line(done.To), text.Line(done.From))
	}
	return nil
}

// number returns how many things there are, in words.
func number(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
