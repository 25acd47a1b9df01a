package workspace

import (
	"context"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/exchange"
)

func newSync(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:   "sync VM[/WORKSPACE]",
		Short: "Bring what has changed on this host since the baseline into the VM",
		Long: `Bring what has changed on this host since the baseline into the VM, merged with what was changed there, or
change nothing and list what conflicts. What came in is then the baseline. If the VM has no commits of its own, its
branch moves to this host's commit; otherwise that commit is refs/banger/host there.`,
		Args: command.Usage(cobra.ExactArgs(1)),
		RunE: a.WithClient(func(ctx context.Context, c *client.Client, args []string) error {
			p, err := exchange.FindActive(ctx, homeOf(a), c, args[0], "change a workspace of")
			if err != nil {
				return err
			}
			return syncPlace(ctx, a, p)
		}),
	}
}

// syncPlace brings what has changed on this host into a workspace. Of p it needs what Find sets before it reads.
func syncPlace(ctx context.Context, a *command.App, p *exchange.Place) error {
	done, err := p.Sync(ctx)
	notes(a, done.Notes...)
	if err != nil {
		return err
	}
	if len(done.Conflicts) > 0 {
		return conflicting(a, done.Conflicts, "the VM's working tree")
	}
	lines(a.Stdout, done.Changes)
	return nil
}
