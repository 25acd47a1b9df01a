package workspace

import (
	"context"
	"fmt"
	"io"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
)

// Serve answers a request about workspaces, whose further frames come from frames. It writes what goes before the last
// frame to w, and returns that frame.
func (m *Manager) Serve(ctx context.Context, w io.Writer, frames *frame.Reader, req guest.Request) (kind frame.Type,
	answer any, err error) {
	r := requestOf(req)
	kind = frame.Response
	switch req.Op {
	case guest.OpWorkspaces:
		answer = m.List()
	case guest.OpWorkspacePrepare:
		kind = frame.Exit
		answer, err = m.Prepare(w, frames, r)
	case guest.OpWorkspaceChanges:
		kind = frame.Exit
		answer, err = m.Changes(ctx, w, frames, r)
	case guest.OpWorkspaceReset:
		answer, err = m.Reset(r.Name)
	case guest.OpWorkspaceUpdate:
		answer, err = m.Update(r.Name, r.Baseline, r.Removed)
	case guest.OpWorkspaceRemove:
		answer, err = banger.Workspace{}, m.Remove(r.Name, r.Force)
	default:
		err = fmt.Errorf("%q is no operation on workspaces", req.Op)
	}
	return kind, answer, err
}

// requestOf returns the part of a request about workspaces.
func requestOf(req guest.Request) guest.WorkspaceRequest {
	if req.Workspace == nil {
		return guest.WorkspaceRequest{}
	}
	return *req.Workspace
}
