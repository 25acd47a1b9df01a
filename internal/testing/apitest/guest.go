package apitest

import (
	"archive/tar"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/frame"
)

// Guest is a daemon with one VM, box, which has workspaces and says of them what a test wants.
type Guest struct {
	Has     []banger.Workspace
	Files   map[string]string // what has changed in the VM: contents by path; "" is a file that is gone
	Report  any               // the end of the changes; nil means that they are whole
	State   banger.State      // "" means running
	Image   int               // bytes of the file system that came
	Removed []string
	Asked   []string
}

// Serve answers as that daemon.
func (g *Guest) Serve(rw http.ResponseWriter, r *http.Request) {
	g.Asked = append(g.Asked, r.Method+" "+r.URL.Path)
	last := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	switch {
	case r.Method == "POST" && last == "workspaces":
		g.prepare(rw, r)
	case last == "workspaces":
		json.NewEncoder(rw).Encode(g.Has)
	case last == "changes":
		g.changes(rw, r)
	case last == "baseline":
		var ask wire.BaselineRequest
		json.NewDecoder(r.Body).Decode(&ask)
		for _, path := range ask.Removed {
			g.Removed = append(g.Removed, string(path))
		}
		g.Has[0].Baseline = ask.Baseline
		json.NewEncoder(rw).Encode(g.Has[0])
	case last == "reset":
		g.Files = nil
		json.NewEncoder(rw).Encode(g.Has[0])
	case last == "files":
		conn := Upgrade(rw, r)
		defer conn.Close()
		toEnd(frame.NewReader(conn))
		frame.WriteJSON(conn, frame.Response, banger.CopyReport{})
	default:
		vm := banger.VM{ID: "0123456789ab", Name: "box", State: banger.StateRunning}
		if g.State != "" {
			vm.State = g.State
		}
		json.NewEncoder(rw).Encode(vm)
	}
}

// toEnd reads frames until the client sends no more, and returns how many bytes they had.
func toEnd(frames *frame.Reader) (n int) {
	for {
		kind, p, err := frames.Next()
		if n += len(p); err != nil || kind == frame.StdinEOF {
			return n
		}
	}
}

// prepare takes a new workspace.
func (g *Guest) prepare(rw http.ResponseWriter, r *http.Request) {
	var ask wire.WorkspaceRequest
	json.NewDecoder(r.Body).Decode(&ask)
	conn := Upgrade(rw, r)
	defer conn.Close()
	it := banger.Workspace{ID: ask.ID, Name: ask.Name, Path: ask.Path, Baseline: ask.Baseline, Source: ask.Source,
		UID: 7, Created: time.Now()}
	frame.WriteJSON(conn, frame.Response, it)
	g.Image += toEnd(frame.NewReader(conn))
	g.Has = append(g.Has, it)
	frame.WriteJSON(conn, frame.Exit, it)
}

// changes sends what has changed in the VM.
func (g *Guest) changes(rw http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	conn := Upgrade(rw, r)
	defer conn.Close()
	toEnd(frame.NewReader(conn))
	out := tar.NewWriter(frame.Data(conn, frame.Stdout))
	for name, text := range g.Files {
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text)), Format: tar.FormatPAX}
		if text == "" {
			h.Name = filepath.Join(filepath.Dir(name), ".wh."+filepath.Base(name))
		}
		out.WriteHeader(h)
		io.WriteString(out, text)
	}
	out.Close()
	switch report := g.Report.(type) {
	case *banger.Error:
		frame.WriteJSON(conn, frame.Error, report)
	case nil:
		frame.WriteJSON(conn, frame.Exit, banger.WorkspaceReport{})
	default:
		frame.WriteJSON(conn, frame.Exit, report)
	}
}
