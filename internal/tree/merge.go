package tree

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"banger"
	"banger/internal/git"
)

// Conflict is a file that both sides have changed in ways that do not go together.
type Conflict struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// merger merges trees of three ways.
type merger struct {
	store              Store
	base, ours, theirs Listing
}

// Merge returns what the tree ours of a store becomes by what the tree theirs has changed since base, and where that
// is not possible.
func Merge(ctx context.Context, s Store, base, ours, theirs string) (Listing, []Conflict, error) {
	m, err := newMerger(ctx, s, base, ours, theirs)
	if err != nil {
		return nil, nil, err
	}
	return m.merge(ctx)
}

// newMerger lists three trees of a store.
func newMerger(ctx context.Context, s Store, base, ours, theirs string) (m merger, err error) {
	m.store = s
	trees := []string{base, ours, theirs}
	for i, into := range []*Listing{&m.base, &m.ours, &m.theirs} {
		if *into, err = s.List(ctx, trees[i]); err != nil {
			return m, err
		}
	}
	return m, nil
}

// merge returns what ours becomes by what theirs has changed since base, and where that is not possible.
func (m merger) merge(ctx context.Context) (merged Listing, conflicts []Conflict, err error) {
	merged = Listing{}
	all := maps.Clone(m.base)
	maps.Copy(all, m.ours)
	maps.Copy(all, m.theirs)
	for _, path := range all.Paths() {
		base, ours, theirs := m.base[path], m.ours[path], m.theirs[path]
		now, why := ours, ""
		switch {
		case ours == theirs || base == theirs:
		case base == ours:
			now = theirs
		default:
			if now, why, err = m.content(ctx, base, ours, theirs); err != nil {
				return nil, nil, err
			}
		}
		if why != "" {
			conflicts = append(conflicts, Conflict{path, why})
		} else if now != (Entry{}) {
			merged[path] = now
		}
	}
	for path := range merged {
		for dir := filepath.Dir(path); dir != "."; dir = filepath.Dir(dir) {
			if _, ok := merged[dir]; ok {
				conflicts = append(conflicts, Conflict{dir, "one side has a file there, and the other one a directory"})
			}
		}
	}
	slices.SortFunc(conflicts, func(a, b Conflict) int { return strings.Compare(a.Path, b.Path) })
	return merged, slices.CompactFunc(conflicts, func(a, b Conflict) bool { return a.Path == b.Path }), nil
}

// content merges a file that both sides have changed. It returns why it cannot.
func (m merger) content(ctx context.Context, base, ours, theirs Entry) (now Entry, why string, err error) {
	switch {
	case ours == Entry{} || theirs == Entry{}:
		return now, "one side has removed it, and the other one has changed it", nil
	case ours.Mode == ModeLink || theirs.Mode == ModeLink:
		return now, "it is a symlink, and both sides have changed it", nil
	}
	now = ours
	if base.Mode == ours.Mode {
		now.Mode = theirs.Mode
	}
	if ours.OID == theirs.OID || base.OID == theirs.OID {
		return now, "", nil
	}
	if base.OID == ours.OID {
		now.OID = theirs.OID
		return now, "", nil
	}
	if (base == Entry{}) {
		return now, "both sides have added it", nil
	}
	dir, err := os.MkdirTemp(m.store.Dir, "tmp-merge-")
	if err != nil {
		return now, "", banger.Errorf(banger.CodeDisk, "merging a file: %w", banger.Cause(err))
	}
	defer os.RemoveAll(dir)
	for name, e := range map[string]Entry{"ours": ours, "base": base, "theirs": theirs} {
		content, err := m.store.Git.Bytes(ctx, "", "cat-file", "blob", e.OID)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), content, 0o600)
		}
		if err != nil {
			return now, "", err
		}
	}
	g := git.Git{Dir: dir, Bounded: true}
	merged, err := g.Bytes(ctx, "", "merge-file", "-p", "--quiet", "ours", "base", "theirs")
	var failed *git.Failure
	if errors.As(err, &failed) {
		return now, "both sides have changed the same lines", nil
	}
	if err != nil {
		return now, "", err
	}
	now.OID, err = m.store.Blob(ctx, bytes.NewReader(merged))
	return now, "", err
}
