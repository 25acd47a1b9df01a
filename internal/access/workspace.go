package access

import (
	"cmp"
	"context"
	"net"

	"banger"
	"banger/internal/guest"
)

// Workspaces gives clients the workspaces of VMs. A suspended VM is woken for each request.
type Workspaces struct{ guests Guests }

// Workspaces returns the access to workspaces.
func (g Guests) Workspaces() Workspaces { return Workspaces{g} }

// agent returns a client of the agent of a VM, which it wakes.
func (w Workspaces) agent(ctx context.Context, ref string) (guest.Workspaces, error) {
	vm, _, err := w.guests.awake(ctx, ref, "use a workspace of")
	if err != nil {
		return guest.Workspaces{}, err
	}
	return guest.Workspaces{Client: w.guests.VMs.Agent(vm.ID)}, nil
}

// List returns the workspaces of a VM, the newest first.
func (w Workspaces) List(ctx context.Context, ref string) ([]banger.Workspace, error) {
	agent, err := w.agent(ctx, ref)
	if err != nil {
		return nil, err
	}
	return agent.List(ctx)
}

// Prepare opens the stream of a new workspace, as guest.OpWorkspacePrepare describes. user is who works in it; "" means
// the VM's user. The caller owns the stream.
func (w Workspaces) Prepare(ctx context.Context, ref string, it banger.Workspace, user string) (net.Conn, error) {
	if err := guest.CheckNewWorkspace(it); err != nil {
		return nil, err
	}
	vm, def, err := w.guests.awake(ctx, ref, "make a workspace in")
	if err != nil {
		return nil, err
	}
	return guest.Workspaces{Client: w.guests.VMs.Offering(vm.ID)}.Prepare(ctx, it, cmp.Or(user, def.User))
}

// Changes opens the stream of a workspace's changes, as guest.OpWorkspaceChanges describes. part is guest.PartGit,
// guest.PartTree or "" for all; ignore has more rules of gitignore(5). The caller owns the stream.
func (w Workspaces) Changes(ctx context.Context, ref, name, part string, ignore []byte) (net.Conn, error) {
	r := guest.WorkspaceRequest{Name: name, Part: part, Ignore: ignore}
	if err := r.CheckPart(); err != nil {
		return nil, err
	}
	vm, _, err := w.guests.awake(ctx, ref, "see the changes of a workspace of")
	if err != nil {
		return nil, err
	}
	return guest.Workspaces{Client: w.guests.VMs.Offering(vm.ID)}.Changes(ctx, r)
}

// Reset takes back all changes of a workspace. Processes that are in it stay in the old tree.
func (w Workspaces) Reset(ctx context.Context, ref, name string) (banger.Workspace, error) {
	agent, err := w.agent(ctx, ref)
	if err != nil {
		return banger.Workspace{}, err
	}
	return agent.Reset(ctx, name)
}

// SetBaseline removes files of a workspace, and then sets what it is based on, in words of the client.
func (w Workspaces) SetBaseline(ctx context.Context, ref, name, baseline string, removed [][]byte) (banger.Workspace,
	error) {
	if err := guest.CheckBaseline(baseline); err != nil {
		return banger.Workspace{}, err
	}
	agent, err := w.agent(ctx, ref)
	if err != nil {
		return banger.Workspace{}, err
	}
	return agent.Update(ctx, name, baseline, removed)
}

// Remove removes a workspace with its changes. With force it does so while processes use it.
func (w Workspaces) Remove(ctx context.Context, ref, name string, force bool) error {
	agent, err := w.agent(ctx, ref)
	if err != nil {
		return err
	}
	return agent.Remove(ctx, name, force)
}
