package guest

import (
	"encoding/json"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"

	"banger"
	"banger/internal/frame"
)

// TestAnAgentThatLiesAboutWorkspaces checks that nothing of a workspace is long or dangerous to print.
func TestAnAgentThatLiesAboutWorkspaces(t *testing.T) {
	evil := strings.Repeat("\x1b[2J\n", 10_000)
	lie := map[string]any{"id": evil, "name": evil, "path": evil, "baseline": evil, "source": evil, "error": evil,
		"in_old": -7, "uid": 1<<32 - 1}
	c := Workspaces{fakeAgent(t, func(r Request, agent net.Conn) {
		answer := any(lie)
		if r.Op == OpWorkspaces {
			answer = []any{lie}
		}
		frame.WriteJSON(agent, frame.Response, answer)
	})}
	for name, ask := range map[string]func() (banger.Workspace, error){
		"reset":  func() (banger.Workspace, error) { return c.Reset(t.Context(), "box") },
		"update": func() (banger.Workspace, error) { return c.Update(t.Context(), "box", "two", nil) },
		"list": func() (banger.Workspace, error) {
			list, err := c.List(t.Context())
			if err != nil || len(list) != 1 {
				return banger.Workspace{}, err
			}
			return list[0], nil
		},
	} {
		w, err := ask()
		if err != nil || w.UID != 1<<32-1 || w.InOld != 0 {
			t.Errorf("%s: %+v, %v", name, w, err)
		}
		printable(t, name, reflect.ValueOf(w))
		if said, _ := json.Marshal(w); len(said) > 32<<10 {
			t.Errorf("%s: the workspace has %d bytes", name, len(said))
		}
	}
}

// TestAnAgentWithTooManyWorkspaces sends what is no list of workspaces.
func TestAnAgentWithTooManyWorkspaces(t *testing.T) {
	for name, answer := range map[string]func(io.Writer){
		"many": func(w io.Writer) {
			frame.Write(w, frame.Response, []byte("["+strings.Repeat("{},", MaxWorkspaces)+"{}]"))
		},
		"nothing":        func(w io.Writer) { frame.Write(w, frame.Response, []byte("7")) },
		"other elements": func(w io.Writer) { frame.Write(w, frame.Response, []byte("[1,2]")) },
		"another frame":  func(w io.Writer) { frame.Write(w, frame.Exit, []byte("[]")) },
	} {
		c := answering(t, func(agent net.Conn, _ *frame.Reader) { answer(agent) })
		if got, err := (Workspaces{c}).List(t.Context()); banger.CodeOf(err) != banger.CodeGuest || len(got) != 0 {
			t.Errorf("%s: %d workspaces, %v", name, len(got), err)
		}
	}
}

// TestPathsOfWorkspaces checks where a workspace may be.
func TestPathsOfWorkspaces(t *testing.T) {
	for path, want := range map[string]bool{"/workspace": true, "/home/me/a b": true, "/process": true, "/devel": true,
		"/é": true, "": false, "w": false, "/": false, "//w": false, "/w/": false, "/w/../x": false, "/w/.": false,
		"/proc": false, "/proc/1": false, "/sys/x": false, "/dev/shm": false, "/run": false, "/a\x00": false,
		"/a\xff": false, "/a\u009b": false, "/" + strings.Repeat("a", maxMountPath): false} {
		if err := CheckMountPath(path); (err == nil) != want || err != nil && banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("%.40q: %v", path, err)
		}
	}
	if !Within("/a/b", "/a") || !Within("/a", "/a") || Within("/ab", "/a") || Within("/a", "/a/b") {
		t.Error("it is not known what is within what")
	}
}
