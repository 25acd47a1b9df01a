package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/cli/command"
)

func newCommit(a *app) *cobra.Command {
	var note banger.CommitNote
	c := &cobra.Command{
		Use:   "commit VM NAME[:TAG]",
		Short: "Make an image of what a running VM has changed",
		Args:  command.Usage(cobra.ExactArgs(2)),
		Long: `Make an image of the VM's own image and one layer with all that was changed since. /etc/hostname,
/etc/hosts, /etc/resolv.conf and what is mounted are left out. The VM goes on running: what is being written
may be half there.`,
	}
	c.Flags().StringVarP(&note.Author, "author", "a", "", "who made it, for the image's history")
	c.Flags().StringVarP(&note.Message, "message", "m", "", "what it is, for the image's history")
	return command.WithProgress(a.App, c, func(ctx context.Context, o command.Operation, args []string) error {
		return o.Image(o.Client.CommitVM(ctx, args[0], args[1], note, o.Emit))
	})
}
