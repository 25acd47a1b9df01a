package access

import (
	"cmp"
	"context"
	"net"

	"banger"
	"banger/internal/guest"
)

// Disks are the disks of VMs.
type Disks interface {
	// Still returns a client of the agent of a VM of its own, which reads the disk of the VM that ref names. The caller
	// calls release when it needs that VM no longer. With keep the next call may get the same one.
	Still(ctx context.Context, ref string) (agent guest.Client, release func(keep bool), err error)
}

// Workspaces gives clients the workspaces of VMs. A suspended VM is woken for each request. Those of a VM at rest are
// read from its disk.
type Workspaces struct {
	guests Guests
	disks  Disks
}

// Workspaces returns the access to workspaces. It reads disks by d.
func (g Guests) Workspaces(d Disks) Workspaces { return Workspaces{g, d} }

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
	vm, err := w.guests.VMs.Get(ref)
	if err == nil && vm.State.AtRest() {
		return w.listStill(ctx, vm)
	}
	agent, err := w.agent(ctx, ref)
	if err != nil {
		return nil, err
	}
	return agent.List(ctx)
}

// listStill is List for a VM at rest.
func (w Workspaces) listStill(ctx context.Context, vm banger.VM) ([]banger.Workspace, error) {
	if vm.ImageDigest == "" { // it is being made
		return []banger.Workspace{}, nil
	}
	agent, release, err := w.disks.Still(ctx, vm.ID)
	if err != nil {
		return nil, err
	}
	list, err := guest.Workspaces{Client: agent}.List(ctx)
	release(err == nil) // a client often asks for changes next
	for i := range list {
		list[i].Stored = true
	}
	return list, err
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
	vm, err := w.guests.VMs.Get(ref)
	if err == nil && vm.State.AtRest() {
		return w.changesStill(ctx, vm, r)
	}
	vm, _, err = w.guests.awake(ctx, ref, "see the changes of a workspace of")
	if err != nil {
		return nil, err
	}
	return guest.Workspaces{Client: w.guests.VMs.Offering(vm.ID)}.Changes(ctx, r)
}

// changesStill is Changes for a VM at rest.
func (w Workspaces) changesStill(ctx context.Context, vm banger.VM, r guest.WorkspaceRequest) (net.Conn, error) {
	agent, release, err := w.disks.Still(ctx, vm.ID)
	if err != nil {
		return nil, err
	}
	conn, err := guest.Workspaces{Client: agent}.Changes(ctx, r)
	if err != nil {
		release(false)
		return nil, err
	}
	return lent{conn, release}, nil
}

// lent is a stream of a VM that reads a disk, and goes with the stream.
type lent struct {
	net.Conn
	release func(keep bool)
}

// Close closes the stream, and returns when the VM is gone.
func (l lent) Close() error {
	defer l.release(false)
	return l.Conn.Close()
}

// CloseWrite ends the sending direction.
func (l lent) CloseWrite() error {
	if half, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
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
