package workspace

import (
	"context"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/exchange"
)

// Enter is called before a command starts in a VM. It says if this host's repository has moved since the VM's
// workspace was prepared. With prepare it brings into the workspace what has changed on this host.
func Enter(ctx context.Context, a *command.App, c *client.Client, vm string, prepare bool) error {
	home := homeOf(a)
	if !home.Any() && !prepare {
		return nil
	}
	it, err := c.Get(ctx, vm)
	if err != nil {
		return err
	}
	if !prepare {
		if moved := home.Moved(ctx, it.ID); moved != "" {
			notes(a, moved+"; bring that in: banger workspace sync "+it.Name)
		}
		return nil
	}
	if it.State.AtRest() {
		return it.NotRunning("change a workspace of")
	}
	list, err := c.Workspaces(ctx, it.ID)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return banger.Errorf(banger.CodeNotFound, "VM %s has no workspace to prepare", it.Name).
			WithHint("bring one in: banger workspace prepare %s PATH", it.Name)
	}
	quiet := *a
	quiet.Stdout = a.Stderr // stdout belongs to the command
	for _, w := range list {
		if err := syncPlace(ctx, &quiet, &exchange.Place{Client: c, Home: home, VM: it.ID, It: w}); err != nil {
			return err
		}
	}
	return nil
}
