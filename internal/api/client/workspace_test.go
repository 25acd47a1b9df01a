package client_test

import (
	"net"
	"strings"
	"testing"

	"banger"
	"banger/internal/frame"
	"banger/internal/testing/hosttest"
)

// TestWorkspacesOfAVM asks for what a VM does not have, and for workspaces that cannot be made. Those of real guests
// are in the stories.
func TestWorkspacesOfAVM(t *testing.T) {
	t.Parallel()
	w, ctx := newWorld(t), t.Context()
	ok[banger.VM](t)(w.Create(ctx, w.spec("box"), nil, true, banger.Discard))
	if list := ok[[]banger.Workspace](t)(w.Workspaces(ctx, "box")); len(list) > 0 {
		t.Errorf("there are %+v", list)
	}
	it := banger.Workspace{ID: strings.Repeat("a", 32), Name: "work", Path: "/etc/passwd/work", Baseline: "one"}
	conn := ok[net.Conn](t)(w.PrepareWorkspace(ctx, "box", it, "0"))
	defer conn.Close()
	if got := frames(t, conn); !strings.Contains(got, "not a directory") {
		t.Errorf("the stream ends with %q", got)
	}
	if _, err := w.PrepareWorkspace(ctx, "box", banger.Workspace{}, ""); banger.CodeOf(err) != banger.CodeInvalid {
		t.Errorf("nothing is prepared: %v", err)
	}
	changes := ok[net.Conn](t)(w.WorkspaceChanges(ctx, "box", "work", "git", []byte("*.o\n")))
	defer changes.Close()
	hosttest.Check(t, frame.Write(changes, frame.StdinEOF, nil))
	if got := frames(t, changes); !strings.Contains(got, "has no workspace") {
		t.Errorf("the stream ends with %q", got)
	}
	if _, err := w.WorkspaceChanges(ctx, "box", "work", "all", nil); banger.CodeOf(err) != banger.CodeInvalid {
		t.Errorf("another part: %v", err)
	}
	_, reset := w.ResetWorkspace(ctx, "box", "work")
	_, update := w.SetWorkspaceBaseline(ctx, "box", "work", "two", nil)
	for name, err := range map[string]error{"reset": reset, "update": update,
		"remove": w.RemoveWorkspace(ctx, "box", "work", true)} {
		if banger.CodeOf(err) != banger.CodeNotFound || !strings.Contains(err.Error(), "has no workspace") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.SetWorkspaceBaseline(ctx, "box", "work", "\n", nil); banger.CodeOf(err) != banger.CodeInvalid {
		t.Errorf("a baseline that is no word: %v", err)
	}
}
