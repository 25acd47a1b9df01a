package guest

import (
	"cmp"
	"context"
	"net"
	"path"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"banger"
	"banger/internal/frame"
	"banger/internal/text"
)

// WorkspaceRequest is the part of a Request about workspaces.
type WorkspaceRequest struct {
	Name     string            `json:"name,omitempty"`
	New      *banger.Workspace `json:"new,omitempty"`      // of OpWorkspacePrepare; its fields up to Source
	User     string            `json:"user,omitempty"`     // of OpWorkspacePrepare, as of banger.Exec
	Baseline string            `json:"baseline,omitempty"` // of OpWorkspaceUpdate
	Removed  [][]byte          `json:"removed,omitempty"`  // of OpWorkspaceUpdate: paths of files that go first
	Force    bool              `json:"force,omitempty"`    // of OpWorkspaceRemove: also while processes use it
	Part     string            `json:"part,omitempty"`     // of OpWorkspaceChanges: PartGit or PartTree; "" means all
	Ignore   []byte            `json:"ignore,omitempty"`   // of OpWorkspaceChanges: rules below those of the tree
}

// The operations on workspaces answer a banger.Workspace, or a list of them, unless they say otherwise.
const (
	OpWorkspaces = "workspaces"
	// OpWorkspacePrepare answers the workspace with the user's numbers. Then it takes frames of stdin, an ext4 file
	// system, up to frame.StdinEOF. It answers the workspace again, as frame.Exit, when that is mounted.
	OpWorkspacePrepare = "workspace-prepare"
	// OpWorkspaceChanges takes frames of stdin, paths that count as tracked, each with a NUL at its end, up to
	// frame.StdinEOF. It answers with frames of output, a tar, and at the end with frame.Exit, a banger.WorkspaceReport.
	OpWorkspaceChanges = "workspace-changes"
	OpWorkspaceReset   = "workspace-reset"  // takes back all changes
	OpWorkspaceUpdate  = "workspace-update" // removes files, and sets the baseline's name
	OpWorkspaceRemove  = "workspace-remove"
)

// The parts of the changes of a workspace.
const (
	PartGit  = "git"  // what is below directories called .git
	PartTree = "tree" // the rest
)

// Bounds of workspaces, in bytes but for the number of them.
const (
	MaxWorkspaces = 64
	MaxImage      = 64 << 30  // of a baseline's file system
	MaxIgnore     = 512 << 10 // of WorkspaceRequest.Ignore: a frame has room for it
	MaxTracked    = 16 << 20  // of the paths that count as tracked
	maxBaseline   = 128
	maxSource     = 4096
	maxMountPath  = 1024
)

var workspaceID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// CheckWorkspaceID returns an *Error of CodeInvalid unless id can be the id of a workspace.
func CheckWorkspaceID(id string) error {
	if !workspaceID.MatchString(id) {
		return banger.Errorf(banger.CodeInvalid, "%.80q is not a valid id of a workspace", id).
			WithHint("use 32 lower-case hex digits")
	}
	return nil
}

// reserved are directories in which no workspace can be.
var reserved = []string{"/proc", "/sys", "/dev", "/run"}

// CheckMountPath returns an *Error of CodeInvalid unless a workspace can be at a path.
func CheckMountPath(p string) error {
	invalid := func(why string) error {
		return banger.Errorf(banger.CodeInvalid, "a workspace cannot be at %.200q, because %s", p, why).
			WithHint("use a path such as /workspace")
	}
	if !path.IsAbs(p) || path.Clean(p) != p {
		return invalid("the path is not absolute and clean")
	}
	if p == "/" {
		return invalid("that is the whole file system")
	}
	if len(p) > maxMountPath || !isPrintable(p) {
		return invalid("the path is too long, or has control characters")
	}
	for _, dir := range reserved {
		if Within(p, dir) {
			return invalid(dir + " is the system's")
		}
	}
	return nil
}

// Within reports whether a clean path is a directory or is below it.
func Within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func isPrintable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// CheckBaseline returns an *Error of CodeInvalid unless name can be the name of a baseline.
func CheckBaseline(name string) error {
	if name == "" || len(name) > maxBaseline || !isPrintable(name) {
		return banger.Errorf(banger.CodeInvalid, "%.200q cannot name a baseline", name).
			WithHint("use 1 to %d printable bytes", maxBaseline)
	}
	return nil
}

// CheckNewWorkspace returns an *Error of CodeInvalid unless w can be made, in an empty VM.
func CheckNewWorkspace(w banger.Workspace) error {
	var source error
	if len(w.Source) > maxSource || !isPrintable(w.Source) {
		source = banger.Errorf(banger.CodeInvalid, "the source of a workspace is too long, or has control characters")
	}
	return cmp.Or(CheckWorkspaceID(w.ID), banger.CheckWorkspace(w.Name), CheckMountPath(w.Path),
		CheckBaseline(w.Baseline), source)
}

// CheckPart returns an *Error of CodeInvalid unless the request names a part of changes, with few enough rules.
func (r *WorkspaceRequest) CheckPart() error {
	switch r.Part {
	case "", PartGit, PartTree:
	default:
		return banger.Errorf(banger.CodeInvalid, "%.20q is not a part of changes", r.Part).WithHint("use git or tree")
	}
	if len(r.Ignore) > MaxIgnore {
		return banger.Errorf(banger.CodeInvalid, "the rules of what is ignored have %d bytes, but at most %d are allowed",
			len(r.Ignore), MaxIgnore)
	}
	return nil
}

// limitWorkspace bounds what an agent says about a workspace, and makes it printable.
func limitWorkspace(w *banger.Workspace) {
	w.ID, w.Name = text.Limit(w.ID, 32), text.Limit(w.Name, 63)
	w.Path, w.Source = text.Limit(w.Path, maxMountPath), text.Limit(w.Source, maxSource)
	w.Baseline, w.Error = text.Limit(w.Baseline, maxBaseline), text.Limit(w.Error, maxReason)
	w.InOld, w.Stored = max(w.InOld, 0), false
}

// Workspaces makes the requests about the workspaces of one guest.
type Workspaces struct{ Client }

// List returns all workspaces, the newest first.
func (c Workspaces) List(caller context.Context) ([]banger.Workspace, error) {
	ctx, cancel := context.WithTimeout(caller, callTimeout)
	defer cancel()
	conn, err := c.send(ctx, Request{Op: OpWorkspaces, Workspace: &WorkspaceRequest{}})
	if err != nil {
		return nil, unanswered(caller, err)
	}
	var list workspaceList
	if err := answer(ctx, conn, frame.Response, &list); err != nil {
		return nil, unanswered(caller, err)
	}
	for i := range list {
		limitWorkspace(&list[i])
	}
	return list, nil
}

// workspaceList is a list of at most MaxWorkspaces workspaces. A longer one is refused before it takes memory.
type workspaceList []banger.Workspace

func (l *workspaceList) UnmarshalJSON(data []byte) (err error) {
	*l, err = decodeList[banger.Workspace](data, MaxWorkspaces)
	return err
}

// Prepare opens the stream of a new workspace, as OpWorkspacePrepare describes. The caller owns it.
func (c Workspaces) Prepare(ctx context.Context, w banger.Workspace, user string) (net.Conn, error) {
	return c.send(ctx, Request{Op: OpWorkspacePrepare, Workspace: &WorkspaceRequest{New: &w, User: user}})
}

// Changes opens the stream of a workspace's changes, as OpWorkspaceChanges describes. The caller owns it.
func (c Workspaces) Changes(ctx context.Context, r WorkspaceRequest) (net.Conn, error) {
	return c.send(ctx, Request{Op: OpWorkspaceChanges, Workspace: &r})
}

// Reset takes back all changes of a workspace. Processes that are in it stay in the old tree.
func (c Workspaces) Reset(ctx context.Context, name string) (banger.Workspace, error) {
	return c.one(ctx, OpWorkspaceReset, WorkspaceRequest{Name: name})
}

// Update removes files of a workspace, and sets the name of its baseline.
func (c Workspaces) Update(ctx context.Context, name, baseline string, removed [][]byte) (banger.Workspace, error) {
	return c.one(ctx, OpWorkspaceUpdate, WorkspaceRequest{Name: name, Baseline: baseline, Removed: removed})
}

// Remove removes a workspace with its changes. With force it does so while processes use it.
func (c Workspaces) Remove(ctx context.Context, name string, force bool) error {
	_, err := c.one(ctx, OpWorkspaceRemove, WorkspaceRequest{Name: name, Force: force})
	return err
}

// removeTime bounds a request that removes many files.
const removeTime = 10 * callTimeout

// one makes a request that is answered with a workspace.
func (c Workspaces) one(caller context.Context, op string, r WorkspaceRequest) (w banger.Workspace, err error) {
	ctx, cancel := context.WithTimeout(caller, removeTime)
	defer cancel()
	conn, err := c.send(ctx, Request{Op: op, Workspace: &r})
	if err != nil {
		return w, unanswered(caller, err)
	}
	err = answer(ctx, conn, frame.Response, &w)
	limitWorkspace(&w)
	return w, unanswered(caller, err)
}
