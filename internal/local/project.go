package local

import (
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/aymanbagabas/go-udiff"

	"banger"
	"banger/internal/blob"
	"banger/internal/config"
	"banger/internal/exchange"
	"banger/internal/tooling"
)

// Allowed is what a rule changes in the banger.toml of a VM's project.
type Allowed struct {
	File    string   `json:"file"`
	Changes string   `json:"changes"` // a unified diff
	Notes   []string `json:"notes,omitempty"`
}

// allow writes a rule into the banger.toml of the project that a VM works on, and into the VM's own policy. A file that
// the user has allowed before stays allowed, as the user has asked for what is new in it. With dry_run, allow only says
// what it would write.
func (l *Local) allow(r *http.Request) (a Allowed, err error) {
	var want struct {
		Rule   banger.Rule `json:"rule"`
		DryRun bool        `json:"dry_run"`
	}
	if err := body(r, &want); err != nil {
		return a, err
	}
	if err := (banger.Policy{Default: banger.Deny, Rules: []banger.Rule{want.Rule}}).Check(); err != nil {
		return a, err
	}
	if want.Rule.Action != banger.Allow {
		return a, banger.Errorf(banger.CodeInvalid, "the rule %q allows nothing", want.Rule)
	}
	ctx := r.Context()
	vm, err := l.Client.Get(ctx, r.PathValue("vm"))
	if err != nil {
		return a, err
	}
	if vm.Spec.Policy == nil {
		return a, banger.Errorf(banger.CodeConflict, "VM %s has no network", vm.Name)
	}
	place, err := exchange.Find(ctx, l.home(), l.Client, vm.Name)
	if err != nil {
		return a, err
	}
	root, err := tooling.Root(place.Record.Source)
	if err != nil {
		return a, err
	}
	release, err := l.Hold(ctx)
	if err != nil {
		return a, err
	}
	defer release()
	reviews := config.Reviews{Dir: filepath.Join(l.Paths.State, "reviews")}
	a, after, err := allowing(root, reviews, want.Rule, *vm.Spec.Policy)
	if err != nil || want.DryRun {
		return a, err
	}
	if err := reviews.Allow(a.File, after); err != nil { // before the file is there: it must not be found unreviewed
		return a, err
	}
	if err := write(a.File, after); err != nil {
		return a, err
	}
	policy := *vm.Spec.Policy
	policy.Rules = append([]banger.Rule{want.Rule}, policy.Rules...)
	_, err = l.Client.SetPolicy(ctx, vm.ID, policy)
	return a, err
}

// allowing returns what a rule changes in the file of the project at root, and the file's new text. present is the
// policy of the VM.
func allowing(root string, reviews config.Reviews, rule banger.Rule, present banger.Policy) (a Allowed, after []byte,
	err error) {
	a.File = filepath.Join(root, config.ProjectFile)
	project, before, err := config.LoadProject(root)
	if err != nil {
		return a, nil, err
	}
	if project != nil && reviews.State(a.File, before) != config.Allowed {
		return a, nil, banger.Errorf(banger.CodeDenied, "%s is not obeyed, because you have not allowed it as it is", a.File).
			WithHint("review it: banger config allow %s", root)
	}
	after, a.Notes, err = config.Allowing(before, rule, present)
	a.Changes = udiff.Unified("now", "then", string(before), string(after))
	return a, after, err
}

// write replaces a file of a repository, or what it links to, with its mode, or makes it readable by all.
func write(path string, text []byte) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	err := blob.WriteFile(path, mode, func(w io.Writer) error { _, err := w.Write(text); return err })
	if err != nil {
		return banger.Errorf(banger.CodeUnavailable, "cannot write %s: %w", path, banger.Cause(err)).
			WithHint("see if you may write there, and if there is room")
	}
	return nil
}
