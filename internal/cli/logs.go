package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/internal/cli/command"
	"banger/internal/cli/render"
)

// logsOptions say which part of a VM's console is shown.
type logsOptions struct {
	follow bool
	tail   string // a number of lines, or "all"
}

func newLogs(a *app) *cobra.Command {
	var o logsOptions
	c := &cobra.Command{
		Use:   "logs [flags] VM",
		Short: "Show a VM's console",
		Args:  command.Usage(cobra.ExactArgs(1)),
		RunE:  func(c *cobra.Command, args []string) error { return runLogs(c.Context(), a, o, args[0]) },
	}
	c.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on until the VM ends")
	c.Flags().StringVarP(&o.tail, "tail", "n", "all", "number of lines from the end")
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
	r, err := client.Logs(ctx, ref, lines, o.follow)
	if err != nil {
		return err
	}
	defer r.Close()
	err = render.Copy(a.Stdout, r)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
