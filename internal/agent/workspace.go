package agent

import (
	"context"
	"io"
	"net"
	"path/filepath"

	"banger/internal/agent/workspace"
	"banger/internal/frame"
	"banger/internal/guest"
)

// workspacesOn returns the directory of the workspaces on a disk.
func workspacesOn(disk string) string { return filepath.Join(disk, "banger", "workspaces") }

// workspaceStreams serves the streams about workspaces.
type workspaceStreams struct{ *server }

// open mounts the workspaces of earlier boots.
func (s workspaceStreams) open() {
	if disk := s.system.Disk(); disk != "" {
		s.workspaces.Open(workspacesOn(disk))
	}
}

// workspace serves one stream about workspaces.
func (s workspaceStreams) workspace(conn net.Conn, frames *frame.Reader, req guest.Request) {
	serve := s.workspaces.Serve
	if other, ok := s.system.(interface{ Workspaces() workspace.Still }); ok {
		serve = other.Workspaces().Serve
	}
	s.copying(conn, func(ctx context.Context, w io.Writer) (frame.Type, any, error) {
		return serve(ctx, w, frames, req)
	})
}
