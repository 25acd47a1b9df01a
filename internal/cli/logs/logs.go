// Package logs is the command logs: what VMs have written, for a person or a program. It chooses by time, by lines and
// by a cursor, and shows the outputs of several VMs side by side.
//
// It must not know how an output comes to be or where it is kept: it reads sources of frames.
package logs

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
)

// options say what of the outputs of VMs is shown, and how.
type options struct {
	follow, times, console bool
	tail                   string // a number of lines, or "all"
	since, until           string
	cursor                 string // the name of a file
	session                string // "": the main command
}

// New returns the command.
func New(a *command.App) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "logs [flags] VM...",
		Short: "Show what the main commands of VMs wrote",
		Long: "Show what a VM's main command wrote, its stdout on stdout and its stderr on stderr. " +
			"For a VM without a main command, show its console. Lines of several VMs begin with their names.\n\n" +
			"A time is a duration before now (10m, 1h30m), a date, a time of RFC 3339 with or without a zone, or " +
			"seconds of the Unix epoch.",
		Example: `  banger logs -f web db                  two VMs side by side, until both end
  banger logs -t --since 10m web         the last ten minutes, with times
  banger logs --cursor ~/web.at web      what came since the last call with this file`,
		Args: command.Usage(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return run(c.Context(), a, o, args) },
	}
	o.register(c)
	c.Flags().StringVar(&o.session, "session", "", "show a session of each VM instead of its main command")
	c.Flags().BoolVar(&o.console, "console", false, "show the console: the guest's kernel, the agent and its init")
	return c
}

// NewOfSession returns the command for one session.
func NewOfSession(a *command.App) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "logs [flags] VM SESSION",
		Short: "Show what a session's command wrote",
		Long: "Show what a session's command wrote, its stdout on stdout and its stderr on stderr. The same as: " +
			"banger logs --session SESSION VM",
		Args: command.Usage(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			o.session = args[1]
			return run(c.Context(), a, o, args[:1])
		},
	}
	o.register(c)
	return c
}

// register adds the flags that all outputs have.
func (o *options) register(c *cobra.Command) {
	f := c.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "go on until the output ends")
	f.StringVarP(&o.tail, "tail", "n", "all", "number of lines from the end")
	f.StringVar(&o.since, "since", "", "show what was written at this time or later")
	f.StringVar(&o.until, "until", "", "show what was written up to this time, which also ends -f")
	f.BoolVarP(&o.times, "timestamps", "t", false, "show when each line was begun")
	f.StringVar(&o.cursor, "cursor", "", "go on where the call before with this file ended, which is written there")
}

// view returns what o wants of each output.
func (o options) view(now time.Time) (v banger.LogView, err error) {
	v.Follow, v.Stamps = o.follow, true
	if v.Tail, err = command.TailLines(o.tail); err != nil {
		return v, err
	}
	if v.Since, err = parseTime("--since", o.since, now); err != nil {
		return v, err
	}
	if v.Until, err = parseTime("--until", o.until, now); err != nil {
		return v, err
	}
	if err := v.Check(); err != nil {
		return v, &command.ExitError{Code: command.ExitUsage, Err: err}
	}
	if o.session != "" {
		if err := banger.CheckSession(o.session); err != nil {
			return v, err
		}
	}
	if o.console && o.session != "" {
		return v, command.UsageErrorf("a session does not write to the console; leave out --console or --session")
	}
	if o.console && o.needsStamps(v) {
		return v, command.UsageErrorf("the console has no times and no positions; leave out --console, or -t, --since, " +
			"--until and --cursor")
	}
	return v, nil
}

// needsStamps reports whether o wants what only an output with times and positions has.
func (o options) needsStamps(v banger.LogView) bool { return o.times || o.cursor != "" || v.Bounded() }

func run(ctx context.Context, a *command.App, o options, refs []string) error {
	view, err := o.view(time.Now())
	if err != nil {
		return err
	}
	s := &show{App: a, options: o, view: view}
	if o.cursor != "" {
		if s.cursors, err = readCursors(o.cursor); err != nil {
			return err
		}
	}
	client, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	stop := func() error { return nil }
	if o.cursor != "" {
		stop = s.cursors.keep(func(err error) { s.say("%w", err) })
	}
	if len(refs) == 1 {
		err = s.one(ctx, client, refs[0])
	} else {
		err = s.several(ctx, client, refs)
	}
	if failed := stop(); failed != nil {
		render.Error(a.Stderr, failed)
		if err == nil {
			err = &command.ExitError{Code: command.ExitFailed}
		}
	}
	return err
}
