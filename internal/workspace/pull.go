package workspace

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"banger"
	"banger/internal/git"
	"banger/internal/tree"
)

// Pull is what a pull would do to the working tree of the host. Nothing is changed before Apply.
type Pull struct {
	Changes   []Change        // to the working tree
	Conflicts []tree.Conflict // if there are any, Apply refuses
	Hazards   []Hazard

	capture     *Capture
	top         string
	before, now tree.Listing // the working tree, and what it becomes
	tree        string       // what it becomes
}

// hostNow scans the host's side of a workspace, as a listing and as a tree of a store.
func hostNow(ctx context.Context, s tree.Store, r *Record) (found *tree.Found, root string, repo *git.Repository,
	err error) {
	found = tree.NewFound()
	scan := tree.Scanner{Store: s, Untracked: r.Untracked}
	if r.Plain {
		if _, err := os.Stat(r.Source); err != nil {
			return nil, "", nil, banger.Errorf(banger.CodeNotFound, "the directory %s is gone", r.Source)
		}
		err = scan.Directory(ctx, r.Source, found)
	} else {
		if repo, err = r.repository(ctx); err == nil && repo.Head != "" {
			err = s.Fetch(ctx, repo, repo.Head, syncDepth)
		}
		if err == nil {
			err = scan.Repository(ctx, repo, "", found)
		}
	}
	if err != nil {
		return nil, "", nil, err
	}
	for p := range found.Files {
		if tree.CheckPath(p) != "" {
			delete(found.Files, p)
		}
	}
	root, err = s.Write(ctx, found.Files)
	return found, root, repo, err
}

// Pull finds what the guest's changes would do to the working tree of the host, as it is now.
func (c *Capture) Pull(ctx context.Context) (*Pull, error) {
	s := c.quar
	found, root, _, err := hostNow(ctx, s, c.Record)
	if err != nil {
		return nil, err
	}
	found.Close()
	p := &Pull{capture: c, top: c.Record.Source, before: found.Files}
	if p.now, p.Conflicts, err = tree.Merge(ctx, s, c.Record.Baseline, root, c.Tree); err != nil || len(p.Conflicts) > 0 {
		return p, err
	}
	if p.tree, err = s.Write(ctx, p.now); err != nil {
		return nil, err
	}
	if p.Changes, err = changesBetween(ctx, s.Git.Set("diff.renames=false"), root, p.tree); err != nil {
		return nil, err
	}
	for _, change := range p.Changes {
		if err := p.look(ctx, change.Path); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// look finds what stands in the way of a change, and whether a tool may obey the file.
func (p *Pull) look(ctx context.Context, name string) error {
	if _, had := p.before[name]; !had {
		if _, err := os.Lstat(filepath.Join(p.top, name)); err == nil {
			p.conflict(name, "a file that is not part of the workspace is there")
		}
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		st, err := os.Lstat(filepath.Join(p.top, dir))
		if _, ours := p.before[dir]; err == nil && !st.IsDir() && !ours {
			p.conflict(name, "on the way to it is a file or a symlink that is not part of the workspace")
		}
	}
	why, err := p.capture.hazard(ctx, p.now, name)
	if err != nil {
		return err
	}
	if why != "" {
		p.Hazards = append(p.Hazards, Hazard{name, why})
	}
	return nil
}

func (p *Pull) conflict(name, why string) {
	p.Conflicts = append(p.Conflicts, tree.Conflict{Path: name, Why: why})
}

// Apply changes the working tree, all of it or nothing. The index, HEAD and the objects of the repository stay as
// they are.
func (p *Pull) Apply(ctx context.Context) (err error) {
	if len(p.Conflicts) > 0 {
		return banger.Errorf(banger.CodeConflict, "%d files have conflicts, so nothing was changed", len(p.Conflicts))
	}
	stage, err := os.MkdirTemp(p.top, ".banger-pull-")
	if err != nil {
		return banger.Errorf(banger.CodeDisk, "changing %s: %w", p.top, banger.Cause(err))
	}
	defer os.RemoveAll(stage)
	a := &applying{pull: p, stage: stage}
	if err := a.write(ctx); err != nil {
		return err
	}
	if err := a.unchanged(ctx); err != nil {
		return err
	}
	for n, change := range p.Changes {
		if err := a.move(n, change.Path); err != nil {
			a.undo()
			return banger.Errorf(banger.CodeDisk, "changing %s failed, so nothing was changed: %w",
				filepath.Join(p.top, change.Path), banger.Cause(err))
		}
	}
	a.tidy()
	return nil
}

// applying moves new files into a working tree, and what was there into a directory beside them.
type applying struct {
	pull  *Pull
	stage string // in the working tree, so that files can be moved
	undos []func() error
}

func (a *applying) new(n int) string { return filepath.Join(a.stage, "new", strconv.Itoa(n)) }
func (a *applying) old(n int) string { return filepath.Join(a.stage, "old", strconv.Itoa(n)) }

// write writes all new files beside the working tree.
func (a *applying) write(ctx context.Context) error {
	for _, dir := range []string{"new", "old"} {
		if err := os.Mkdir(filepath.Join(a.stage, dir), 0o700); err != nil {
			return banger.Errorf(banger.CodeDisk, "changing %s: %w", a.pull.top, banger.Cause(err))
		}
	}
	for n, change := range a.pull.Changes {
		e, stays := a.pull.now[change.Path]
		if !stays {
			continue
		}
		if err := a.pull.capture.quar.WriteOut(ctx, e, a.new(n)); err != nil {
			return err
		}
		st, err := os.Lstat(filepath.Join(a.pull.top, change.Path))
		if err == nil && st.Mode().IsRegular() && e.Mode != tree.ModeLink { // it keeps its rights, but for execution
			mode := st.Mode().Perm() &^ 0o111
			if e.Mode == tree.ModeProgram {
				mode |= mode >> 2 & 0o111
			}
			if err := os.Chmod(a.new(n), mode); err != nil {
				return banger.Errorf(banger.CodeDisk, "changing %s: %w", change.Path, banger.Cause(err))
			}
		}
	}
	return nil
}

// unchanged checks that the files to be replaced are still as they were when the changes were merged.
func (a *applying) unchanged(ctx context.Context) error {
	again := tree.NewFound()
	var paths []string
	for _, change := range a.pull.Changes {
		if _, had := a.pull.before[change.Path]; had {
			paths = append(paths, change.Path)
		}
	}
	if err := (tree.Scanner{Store: a.pull.capture.quar}).Read(ctx, a.pull.top, "", paths, again); err != nil {
		return err
	}
	for _, p := range paths {
		if again.Files[p] != a.pull.before[p] {
			return banger.Errorf(banger.CodeConflict, "%s has just changed, so nothing was changed",
				filepath.Join(a.pull.top, p)).WithHint("repeat the command")
		}
	}
	return nil
}

// move moves what is at a path away, and the new file there.
func (a *applying) move(n int, name string) error {
	at := filepath.Join(a.pull.top, name)
	if _, had := a.pull.before[name]; had {
		if err := os.Rename(at, a.old(n)); err != nil {
			return err
		}
		a.undos = append(a.undos, func() error { return os.Rename(a.old(n), at) })
	}
	if _, stays := a.pull.now[name]; !stays {
		return nil
	}
	if err := a.directories(path.Dir(name)); err != nil {
		return err
	}
	if _, err := os.Lstat(at); err == nil {
		if err := os.Remove(at); err != nil { // an empty directory, of files that have just gone
			return err
		}
		a.undos = append(a.undos, func() error { return os.Mkdir(at, 0o777) })
	}
	if err := os.Rename(a.new(n), at); err != nil {
		return err
	}
	a.undos = append(a.undos, func() error { return os.Remove(at) })
	return nil
}

// directories makes the directories of a path. It goes through no symlink.
func (a *applying) directories(dir string) error {
	if dir == "." {
		return nil
	}
	if err := a.directories(path.Dir(dir)); err != nil {
		return err
	}
	at := filepath.Join(a.pull.top, dir)
	err := os.Mkdir(at, 0o777)
	if err == nil {
		a.undos = append(a.undos, func() error { return os.Remove(at) })
		return nil
	}
	if st, serr := os.Lstat(at); serr == nil && st.IsDir() {
		return nil
	}
	return err
}

// undo takes everything back, the last step first.
func (a *applying) undo() {
	for _, step := range slices.Backward(a.undos) {
		step()
	}
}

// tidy removes directories that are empty now, as git does.
func (a *applying) tidy() {
	for _, change := range a.pull.Changes {
		if _, stays := a.pull.now[change.Path]; stays {
			continue
		}
		for dir := path.Dir(change.Path); dir != "."; dir = path.Dir(dir) {
			if os.Remove(filepath.Join(a.pull.top, dir)) != nil {
				break
			}
		}
	}
}
