package api

import (
	"context"
	"net"
	"net/http"

	"banger"
	"banger/internal/api/wire"
)

// Workspaces manages the trees of the host that VMs work on.
type Workspaces interface {
	List(ctx context.Context, ref string) ([]banger.Workspace, error)
	Prepare(ctx context.Context, ref string, w banger.Workspace, user string) (net.Conn, error)
	Changes(ctx context.Context, ref, name, part string, ignore []byte) (net.Conn, error)
	Reset(ctx context.Context, ref, name string) (banger.Workspace, error)
	SetBaseline(ctx context.Context, ref, name, baseline string, removed [][]byte) (banger.Workspace, error)
	Remove(ctx context.Context, ref, name string, force bool) error
}

var workspaceRoutes = []route{
	{"GET", "/v1/vms/{vm}/workspaces", listWorkspaces, "listWorkspaces", "The workspaces of a VM, newest first", nil, nil,
		[]banger.Workspace{}},
	{"POST", "/v1/vms/{vm}/workspaces", prepareWorkspace, "prepareWorkspace",
		"Make a workspace. Send Upgrade: banger-workspace; after 101 the first frame is frame.Response with the Workspace, " +
			"whose uid and gid are those of the user. Then send the baseline, an ext4 file system, in frame.Stdin up to " +
			"frame.StdinEOF. The last frame is frame.Exit with the Workspace, when it is mounted, or frame.Error. Nothing is " +
			"left of a workspace after frame.Error, nor if the client goes away before frame.StdinEOF",
		nil, wire.WorkspaceRequest{}, upgrade{wire.UpgradeWorkspace}},
	{"DELETE", "/v1/vms/{vm}/workspaces/{workspace}", ofWorkspace(removeWorkspace), "removeWorkspace",
		"Remove a workspace with its changes", []parameter{{"force", "also while processes use it", false, false}}, nil, nil},
	{"POST", "/v1/vms/{vm}/workspaces/{workspace}/reset", ofWorkspace(resetWorkspace), "resetWorkspace",
		"Take back all changes of a workspace. Processes that are in it stay in the old tree", nil, nil, banger.Workspace{}},
	{"PUT", "/v1/vms/{vm}/workspaces/{workspace}/baseline", ofWorkspace(setWorkspaceBaseline), "setWorkspaceBaseline",
		"Say what a workspace is based on from now on, after files of it were removed", nil,
		wire.BaselineRequest{}, banger.Workspace{}},
	{"POST", "/v1/vms/{vm}/workspaces/{workspace}/changes", ofWorkspace(workspaceChanges), "workspaceChanges",
		"What has changed in a workspace. Send Upgrade: banger-workspace; after 101 send the paths that count as tracked " +
			"besides those of the baseline, each with a NUL at its end, in frame.Stdin up to frame.StdinEOF. The answer is " +
			"the tar in frame.Stdout, as of a layer of an image, and at the end frame.Exit with a WorkspaceReport, or " +
			"frame.Error. A tar without its last frame is not whole. Files that are ignored and not tracked are left out",
		nil, wire.ChangesRequest{}, upgrade{wire.UpgradeWorkspace}},
}

func listWorkspaces(s *Server, w http.ResponseWriter, req *http.Request) error {
	return wire.WriteList(w,
		func() ([]banger.Workspace, error) { return s.Workspaces.List(req.Context(), req.PathValue("vm")) })
}

// ofWorkspace returns the handler of a route that is about one workspace, whose VM and name handle gets.
func ofWorkspace(handle func(s *Server, w http.ResponseWriter, req *http.Request, vm, name string) error) func(*Server,
	http.ResponseWriter, *http.Request) error {
	return func(s *Server, w http.ResponseWriter, req *http.Request) error {
		name := req.PathValue("workspace")
		if err := banger.CheckWorkspace(name); err != nil {
			return err
		}
		return handle(s, w, req, req.PathValue("vm"), name)
	}
}

func prepareWorkspace(s *Server, w http.ResponseWriter, req *http.Request) error {
	var r wire.WorkspaceRequest
	if err := wire.Decode(req, &r); err != nil {
		return err
	}
	if err := wantsUpgrade(req, "a new workspace", wire.UpgradeWorkspace); err != nil {
		return err
	}
	it := banger.Workspace{ID: r.ID, Name: r.Name, Path: r.Path, Baseline: r.Baseline, Source: r.Source}
	stream, err := s.Workspaces.Prepare(req.Context(), req.PathValue("vm"), it, r.User)
	if err != nil {
		return err
	}
	return s.handOver(w, req, wire.UpgradeWorkspace, stream)
}

func workspaceChanges(s *Server, w http.ResponseWriter, req *http.Request, vm, name string) error {
	var r wire.ChangesRequest
	if err := wire.Decode(req, &r); err != nil {
		return err
	}
	if err := wantsUpgrade(req, "an answer with changes", wire.UpgradeWorkspace); err != nil {
		return err
	}
	stream, err := s.Workspaces.Changes(req.Context(), vm, name, r.Part, r.Ignore)
	if err != nil {
		return err
	}
	return s.handOver(w, req, wire.UpgradeWorkspace, stream)
}

// answerWorkspace answers with a workspace, unless there is an error.
func answerWorkspace(w http.ResponseWriter, it banger.Workspace, err error) error {
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, it)
}

func resetWorkspace(s *Server, w http.ResponseWriter, req *http.Request, vm, name string) error {
	it, err := s.Workspaces.Reset(req.Context(), vm, name)
	return answerWorkspace(w, it, err)
}

func setWorkspaceBaseline(s *Server, w http.ResponseWriter, req *http.Request, vm, name string) error {
	var r wire.BaselineRequest
	if err := wire.Decode(req, &r); err != nil {
		return err
	}
	it, err := s.Workspaces.SetBaseline(req.Context(), vm, name, r.Baseline, r.Removed)
	return answerWorkspace(w, it, err)
}

func removeWorkspace(s *Server, w http.ResponseWriter, req *http.Request, vm, name string) error {
	if err := s.Workspaces.Remove(req.Context(), vm, name, req.URL.Query().Get("force") == "true"); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
