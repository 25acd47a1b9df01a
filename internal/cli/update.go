package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/spec"
)

func newUpdate(a *app) *cobra.Command {
	var words spec.Changes
	c := newVerb(a, "update", "Change what VMs do by themselves, and their memory and CPUs",
		func(ctx context.Context, client *client.Client, ref string, _ banger.Emit) error {
			u, err := words.Resolve()
			if err != nil {
				return err
			}
			_, err = client.Update(ctx, ref, u)
			return err
		})
	c.Long = c.Short + `.

--restart, --idle and --ttl are in force at once; none switches the last two off. Memory and CPUs are those of the next
boot: a VM that runs or is suspended keeps what it has until then, and "banger inspect" shows both.`
	words.Register(c.Flags())
	named := c.Args
	c.Args = func(c *cobra.Command, args []string) error {
		if err := named(c, args); err != nil {
			return err
		}
		if words == (spec.Changes{}) {
			return command.UsageErrorf("nothing is to be changed (see: %s --help)", c.CommandPath())
		}
		return nil
	}
	return c
}
