package cli

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
)

// logsOptions say what of a VM's output is shown.
type logsOptions struct {
	follow, console bool
	tail            string // a number of lines, or "all"
}

func newLogs(a *app) *cobra.Command {
	var o logsOptions
	c := &cobra.Command{
		Use:   "logs [flags] VM",
		Short: "Show what a VM's main command wrote",
		Long: "Show what a VM's main command wrote, its stdout on stdout and its stderr on stderr. " +
			"For a VM without a main command, show its console.",
		Args: command.Usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return runLogs(c.Context(), a, o, args[0]) },
	}
	c.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on until the VM ends")
	c.Flags().StringVarP(&o.tail, "tail", "n", "all", "number of lines from the end")
	c.Flags().BoolVar(&o.console, "console", false, "show the console: the guest's kernel, the agent and its init")
	return c
}

func runLogs(ctx context.Context, a *app, o logsOptions, ref string) error {
	lines, err := tailLines(o.tail)
	if err != nil {
		return err
	}
	client, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	var r io.ReadCloser
	apart := false
	if o.console {
		r, err = client.Logs(ctx, ref, lines, o.follow)
	} else {
		r, apart, err = client.Output(ctx, ref, banger.LogView{Tail: lines, Follow: o.follow})
	}
	if err != nil {
		return err
	}
	defer r.Close()
	if apart {
		err = render.CopyFrames(a.Stdout, a.Stderr, r)
	} else {
		err = render.Copy(a.Stdout, r)
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return banger.Errorf(banger.CodeUnavailable, "the output of VM %s was cut off: the daemon has ended", ref).
			WithHint("VMs go on running; see it again: banger logs %s", ref)
	}
	return err
}
