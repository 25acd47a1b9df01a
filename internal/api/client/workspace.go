package client

import (
	"context"
	"net"
	"net/url"
	"strconv"

	"banger"
	"banger/internal/api/wire"
)

// workspacePath returns the path of a workspace, or of a verb of it.
func workspacePath(vm, name, verb string) string {
	p := vmPath(vm, "workspaces/"+name)
	if verb != "" {
		p += "/" + verb
	}
	return p
}

// Workspaces returns the workspaces of a VM, the newest first.
func (c workspaceClient) Workspaces(ctx context.Context, vm string) (list []banger.Workspace, err error) {
	return list, c.call(ctx, "GET", vmPath(vm, "workspaces"), nil, nil, &list)
}

// PrepareWorkspace opens the stream of a new workspace, as the server's route describes. user is who works in it; ""
// means the VM's user. The caller owns the connection.
func (c workspaceClient) PrepareWorkspace(ctx context.Context, vm string, w banger.Workspace, user string) (net.Conn,
	error) {
	r := wire.WorkspaceRequest{ID: w.ID, Name: w.Name, Path: w.Path, Baseline: w.Baseline, Source: w.Source, User: user}
	return c.upgrade(ctx, vmPath(vm, "workspaces"), nil, r, wire.UpgradeWorkspace)
}

// WorkspaceChanges opens the stream of a workspace's changes, as the server's route describes. part is "git", "tree" or
// "" for both; ignore has more rules of gitignore(5). The caller owns the connection.
func (c workspaceClient) WorkspaceChanges(ctx context.Context, vm, name, part string, ignore []byte) (net.Conn, error) {
	r := wire.ChangesRequest{Part: part, Ignore: ignore}
	return c.upgrade(ctx, workspacePath(vm, name, "changes"), nil, r, wire.UpgradeWorkspace)
}

// ResetWorkspace takes back all changes of a workspace. The answer says how many processes stay in the old tree.
func (c workspaceClient) ResetWorkspace(ctx context.Context, vm, name string) (w banger.Workspace, err error) {
	return w, c.call(ctx, "POST", workspacePath(vm, name, "reset"), nil, nil, &w)
}

// SetWorkspaceBaseline removes files of a workspace, and then says what it is based on from now on.
func (c workspaceClient) SetWorkspaceBaseline(ctx context.Context, vm, name, baseline string,
	removed [][]byte) (w banger.Workspace, err error) {
	r := wire.BaselineRequest{Baseline: baseline, Removed: removed}
	return w, c.call(ctx, "PUT", workspacePath(vm, name, "baseline"), nil, r, &w)
}

// RemoveWorkspace removes a workspace with its changes or, with force, does so while processes use it.
func (c workspaceClient) RemoveWorkspace(ctx context.Context, vm, name string, force bool) error {
	return c.call(ctx, "DELETE", workspacePath(vm, name, ""), url.Values{"force": {strconv.FormatBool(force)}}, nil, nil)
}
