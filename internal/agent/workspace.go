package agent

import (
	"context"
	"io"
	"net"
	"path/filepath"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
)

// workspaceStreams serves the streams about workspaces.
type workspaceStreams struct{ *server }

// open mounts the workspaces of earlier boots.
func (s workspaceStreams) open() {
	if disk := s.system.Disk(); disk != "" {
		s.workspaces.Open(filepath.Join(disk, "banger", "workspaces"))
	}
}

// workspace serves one stream about workspaces.
func (s workspaceStreams) workspace(conn net.Conn, frames *frame.Reader, req guest.Request) {
	r := req.Workspace
	if r == nil {
		r = &guest.WorkspaceRequest{}
	}
	s.copying(conn, func(ctx context.Context, w io.Writer) (kind frame.Type, answer any, err error) {
		kind = frame.Response
		switch req.Op {
		case guest.OpWorkspaces:
			answer = s.workspaces.List()
		case guest.OpWorkspacePrepare:
			kind = frame.Exit
			answer, err = s.workspaces.Prepare(w, frames, *r)
		case guest.OpWorkspaceChanges:
			kind = frame.Exit
			answer, err = s.workspaces.Changes(ctx, w, frames, *r)
		case guest.OpWorkspaceReset:
			answer, err = s.workspaces.Reset(r.Name)
		case guest.OpWorkspaceUpdate:
			answer, err = s.workspaces.Update(r.Name, r.Baseline, r.Removed)
		case guest.OpWorkspaceRemove:
			answer, err = banger.Workspace{}, s.workspaces.Remove(r.Name, r.Force)
		default:
			err = s.simple(req) // which knows no such operation
		}
		return kind, answer, err
	})
}
