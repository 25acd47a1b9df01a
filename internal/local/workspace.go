package local

import (
	"context"
	"net/http"
	"strings"
	"time"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/exchange"
	"banger/internal/tree"
	"banger/internal/workspace"
)

// Workspace is a workspace of a VM, with what this host knows of it.
type Workspace struct {
	Name    string    `json:"name"`
	Path    string    `json:"path"`   // in the VM
	Source  string    `json:"source"` // on this host, as the record says, or else the VM
	Created time.Time `json:"created,omitzero"`
	Known   bool      `json:"known"`           // this host has a record of it
	Plain   bool      `json:"plain"`           // of a directory without a repository
	Error   string    `json:"error,omitempty"` // why it is not mounted in the VM
}

// Change is one file that differs. Paths are bytes, so they are in base64.
type Change struct {
	Status  string `json:"status"` // as git names it: A, D, M, T, or R and C with the similarity
	Path    []byte `json:"path"`
	From    []byte `json:"from,omitempty"`   // the earlier path of R and C
	Before  string `json:"before,omitempty"` // the mode of git, such as 100644; "" if the file was not there
	After   string `json:"after,omitempty"`
	Added   int    `json:"added"` // lines
	Removed int    `json:"removed"`
	Binary  bool   `json:"binary,omitempty"`
}

// Hazard is a changed file that a tool of this host may obey.
type Hazard struct {
	Path []byte `json:"path"`
	Why  string `json:"why"`
}

// Conflict is a file that cannot be merged.
type Conflict struct {
	Path []byte `json:"path"`
	Why  string `json:"why"`
}

// maxChanges bounds the changes of a capture that are listed. A guest can make many more.
const maxChanges = 20_000

// Capture is what a workspace is like, in the VM and on this host. What is taken of it later is what it was when it
// was captured.
type Capture struct {
	ID      string   `json:"id"`
	Source  string   `json:"source"`
	Path    string   `json:"path"`
	Plain   bool     `json:"plain"`
	Changes []Change `json:"changes"` // of the VM, since the baseline; hazards come first, and at most maxChanges
	Total   int      `json:"total"`   // changes of the VM
	Commits int      `json:"commits"` // of the VM
	Branch  string   `json:"branch"`  // of the VM
	Hazards []Hazard `json:"hazards"`
	Notes   []string `json:"notes"` // what could not be taken out of the VM
	Host    Host     `json:"host"`
}

// Host is this host's side of a workspace.
type Host struct {
	Changes []Change `json:"changes"` // since the baseline
	Branch  string   `json:"branch"`
	Moved   bool     `json:"moved"` // HEAD is another commit than the one that came to the VM last
}

// Exported is a branch that was made, and which of its files tools may obey.
type Exported struct {
	workspace.Exported
	Hazards []Hazard `json:"hazards"`
}

// Pulled is what a pull does to the working tree of this host.
type Pulled struct {
	Changes   []Change   `json:"changes"`
	Conflicts []Conflict `json:"conflicts"` // if there are any, nothing is changed
	Hazards   []Hazard   `json:"hazards"`
}

// Synced is what has come into the VM.
type Synced struct {
	Changes   []Change   `json:"changes"`
	Conflicts []Conflict `json:"conflicts"` // if there are any, nothing was changed
	Notes     []string   `json:"notes"`
}

// Reset is the answer to a reset.
type Reset struct {
	InOld int `json:"in_old"` // processes of the VM that are still in the tree as it was
}

func (l *Local) workspaceRoutes(mux *http.ServeMux) {
	const one = "/ui/local/workspaces/{vm}/{name}"
	const capture = one + "/captures/{id}"
	mux.HandleFunc("GET /ui/local/workspaces/{vm}", answered(l.workspaces))
	mux.HandleFunc("POST "+one+"/captures", answered(l.take))
	mux.HandleFunc("GET "+capture, answered(with(l, status)))
	mux.HandleFunc("GET "+capture+"/file", answered(with(l, file)))
	mux.HandleFunc("POST "+capture+"/export", answered(with(l, export)))
	mux.HandleFunc("POST "+capture+"/pull", answered(with(l, pull)))
	mux.HandleFunc("POST "+one+"/reset", answered(l.reset))
	mux.HandleFunc("POST "+one+"/sync", answered(l.sync))
	mux.HandleFunc("DELETE "+capture, func(w http.ResponseWriter, r *http.Request) {
		if err := l.captures.drop(r.PathValue("vm"), r.PathValue("name"), r.PathValue("id")); err != nil {
			wire.WriteError(w, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// workspaces lists the workspaces of a VM.
func (l *Local) workspaces(r *http.Request) ([]Workspace, error) {
	found, err := l.Client.Workspaces(r.Context(), r.PathValue("vm"))
	if err != nil {
		return nil, err
	}
	list := []Workspace{}
	for _, w := range found {
		it := Workspace{Name: w.Name, Path: w.Path, Source: w.Source, Created: w.Created, Error: w.Error}
		if record, err := l.home().Get(w.ID); err == nil && record.Name == w.Name {
			it.Known, it.Source, it.Plain = true, record.Source, record.Plain
		}
		list = append(list, it)
	}
	return list, nil
}

func (l *Local) home() workspace.Home { return exchange.HomeIn(l.Paths.State) }

// place returns the workspace that a request names. Of it, Read is not called yet.
func (l *Local) place(r *http.Request) *exchange.Place {
	return &exchange.Place{Client: l.Client, Home: l.home(), VM: r.PathValue("vm"),
		It: banger.Workspace{Name: r.PathValue("name")}}
}

// take captures a workspace.
func (l *Local) take(r *http.Request) (s Capture, err error) {
	ctx := r.Context()
	h := &held{vm: r.PathValue("vm"), name: r.PathValue("name"), place: l.place(r)}
	if err := h.place.Read(ctx); err != nil {
		return s, err
	}
	if h.capture, err = h.place.Capture(ctx, exchange.All); err != nil {
		return s, err
	}
	if h.differences, err = h.capture.Differences(ctx); err == nil {
		h.hazards, err = h.capture.Hazards(ctx)
	}
	if err == nil {
		h.hazardsFirst()
		h.commits, err = h.capture.Commits(ctx)
	}
	if err == nil {
		s, err = status(ctx, h, r)
	}
	if err != nil {
		h.capture.Close()
		return s, err
	}
	err = l.captures.add(h)
	s.ID = h.id
	return s, err
}

// with returns what answers a request about an open capture.
func with[T any](l *Local,
	answer func(ctx context.Context, h *held, r *http.Request) (T, error)) func(*http.Request) (T, error) {
	return func(r *http.Request) (v T, err error) {
		h, done, err := l.captures.begin(r.PathValue("vm"), r.PathValue("name"), r.PathValue("id"))
		if err != nil {
			return v, err
		}
		defer done()
		return answer(r.Context(), h, r)
	}
}

// status says what both sides are like. The VM's side is that of the capture, and this host's side is looked at now.
func status(ctx context.Context, h *held, _ *http.Request) (s Capture, err error) {
	record := h.place.Record
	s = Capture{ID: h.id, Source: record.Source, Path: h.place.It.Path, Plain: record.Plain, Changes: []Change{},
		Total: len(h.differences), Commits: h.commits, Branch: h.capture.Branch, Hazards: hazardsOf(h.hazards),
		Notes: append([]string{}, h.capture.Notes...)}
	for _, d := range h.differences[:min(maxChanges, len(h.differences))] {
		s.Changes = append(s.Changes, changeOf(d))
	}
	now, err := h.place.Home.Host(ctx, record)
	s.Host = Host{Changes: changesOf(now.Changes), Branch: now.Branch, Moved: now.Moved}
	return s, err
}

func changeOf(d tree.Difference) Change {
	return Change{Status: d.Status, Path: []byte(d.Path), From: []byte(d.From), Before: d.Before.Mode, After: d.After.Mode,
		Added: d.Added, Removed: d.Removed, Binary: d.Binary}
}

func changesOf(list []workspace.Change) []Change {
	out := []Change{}
	for _, c := range list {
		out = append(out, Change{Status: c.Status, Path: []byte(c.Path), From: []byte(c.From)})
	}
	return out
}

func hazardsOf(list []workspace.Hazard) []Hazard {
	out := []Hazard{}
	for _, h := range list {
		out = append(out, Hazard{[]byte(h.Path), h.Why})
	}
	return out
}

func conflictsOf(list []tree.Conflict) []Conflict {
	out := []Conflict{}
	for _, c := range list {
		out = append(out, Conflict{[]byte(c.Path), c.Why})
	}
	return out
}

// maxBody bounds the body of a request, in bytes. It may have the paths of many files.
const maxBody = 8 << 20

// body reads the body of a request.
func body(r *http.Request, v any) error {
	r.Body = http.MaxBytesReader(nil, r.Body, maxBody)
	return wire.Decode(r, v)
}

// export makes a branch of this host's repository.
func export(ctx context.Context, h *held, r *http.Request) (e Exported, err error) {
	var ask struct {
		Branch string `json:"branch"`
		Force  bool   `json:"force"`
	}
	if err := body(r, &ask); err != nil {
		return e, err
	}
	e.Hazards = hazardsOf(h.hazards)
	e.Exported, err = h.capture.Export(ctx, ask.Branch, ask.Force)
	return e, err
}

// pull merges the VM's changes into this host's working tree, or says what that would change.
func pull(ctx context.Context, h *held, r *http.Request) (done Pulled, err error) {
	var ask struct {
		DryRun bool     `json:"dry_run"`
		Looked [][]byte `json:"looked"` // paths of hazards that the user has looked at
	}
	if err := body(r, &ask); err != nil {
		return done, err
	}
	p, err := h.capture.Pull(ctx)
	if err != nil {
		return done, err
	}
	done = Pulled{changesOf(p.Changes), conflictsOf(p.Conflicts), hazardsOf(p.Hazards)}
	if ask.DryRun {
		return done, nil
	}
	if len(p.Conflicts) > 0 {
		return done, conflicting(p.Conflicts)
	}
	looked := map[string]bool{}
	for _, path := range ask.Looked {
		looked[string(path)] = true
	}
	for _, hazard := range p.Hazards {
		if !looked[hazard.Path] {
			return done, banger.Errorf(banger.CodeConflict, "%s comes with the changes, and nobody has looked at it: %s",
				tree.Quoted(hazard.Path), hazard.Why).WithHint("look at the file, and then repeat the pull")
		}
	}
	return done, p.Apply(ctx)
}

// maxNamed is how many conflicts an error names.
const maxNamed = 5

// conflicting is the error for a pull with conflicts.
func conflicting(list []tree.Conflict) error {
	var named []string
	for _, c := range list[:min(maxNamed, len(list))] {
		named = append(named, tree.Quoted(c.Path)+" ("+c.Why+")")
	}
	if len(list) > maxNamed {
		named = append(named, "and others")
	}
	return banger.Errorf(banger.CodeConflict, "%d files conflict, so this host's working tree was not changed: %s",
		len(list), strings.Join(named, ", ")).WithHint("export the changes as a branch, and merge that")
}

// reset takes back all that was changed in a workspace.
func (l *Local) reset(r *http.Request) (done Reset, err error) {
	p := l.place(r)
	if err := exchange.Active(r.Context(), l.Client, p.VM, "reset a workspace of"); err != nil {
		return done, err
	}
	if err := p.Read(r.Context()); err != nil {
		return done, err
	}
	done.InOld, err = p.Reset(r.Context())
	return done, err
}

// sync brings what has changed on this host into a workspace.
func (l *Local) sync(r *http.Request) (done Synced, err error) {
	p := l.place(r)
	if err := exchange.Active(r.Context(), l.Client, p.VM, "change a workspace of"); err != nil {
		return done, err
	}
	if err := p.Read(r.Context()); err != nil {
		return done, err
	}
	s, err := p.Sync(r.Context())
	return Synced{changesOf(s.Changes), conflictsOf(s.Conflicts), append([]string{}, s.Notes...)}, err
}
