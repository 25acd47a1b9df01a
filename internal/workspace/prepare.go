package workspace

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/git"
	"banger/internal/tree"
)

// Options say what goes into a new workspace.
type Options struct {
	Source    string // a path in the working tree, or a directory
	Name      string
	Path      string // in the guest
	Branch    string // of the guest's checkout; "" keeps the repository's
	From      string // what Branch begins at; "" means the working tree
	Untracked bool   // also what git does not track and does not ignore
	Depth     int    // how many commits of the history; 0 means all
}

// Plan is what would go into a guest. It is in the store of its record.
type Plan struct {
	Record *Record
	Files  int
	Bytes  int64 // of all files
	Fresh  int   // files that the repository's latest commit does not have so
	Skip   []string

	home  Home
	store tree.Store
	found *tree.Found
	top   string
	tree  bool // the content comes from the store, not from the working tree
	kept  bool
}

// Source returns the path of the working tree around a directory, or of the directory if it is in no repository.
func Source(ctx context.Context, path string) (string, error) {
	if err := git.Check(ctx); err != nil {
		return "", err
	}
	source, _, err := open(ctx, path)
	return source, err
}

// Place is Source, with the branch of the working tree, or "".
func Place(ctx context.Context, path string) (source, branch string, err error) {
	if err := git.Check(ctx); err != nil {
		return "", "", err
	}
	source, r, err := open(ctx, path)
	if r != nil {
		branch = r.Branch
	}
	return source, branch, err
}

// open is Source, with the repository, or nil.
func open(ctx context.Context, path string) (source string, r *git.Repository, err error) {
	source, err = filepath.Abs(path)
	if err == nil {
		source, err = filepath.EvalSymlinks(source)
	}
	if err != nil {
		return "", nil, banger.Errorf(banger.CodeNotFound, "there is no directory %s", path)
	}
	if st, err := os.Stat(source); err != nil || !st.IsDir() {
		return "", nil, banger.Errorf(banger.CodeInvalid, "%s is no directory", source).
			WithHint("name a repository or a directory")
	}
	r, err = git.Open(ctx, source)
	switch {
	case errors.Is(err, git.ErrNone):
		return source, nil, nil
	case err != nil:
		return "", nil, err
	}
	return r.Top, r, nil
}

// Plan finds what goes into a guest, and keeps in a new store what the user's repository does not have. The caller
// drops it.
func (h Home) Plan(ctx context.Context, o Options) (p *Plan, err error) {
	if err := git.Check(ctx); err != nil {
		return nil, err
	}
	source, r, err := open(ctx, o.Source)
	if err != nil {
		return nil, err
	}
	p = &Plan{home: h, top: source, found: tree.NewFound(), Record: &Record{ID: newID(), Name: o.Name, Path: o.Path,
		Source: source, Plain: r == nil, Format: "sha1", Created: time.Now().UTC(), Untracked: o.Untracked}}
	if r != nil {
		p.Record.Format, p.Record.CRLF = r.Format, r.CRLF
	} else if o.Branch != "" || o.From != "" {
		return nil, banger.Errorf(banger.CodeInvalid, "%s is in no git repository, so it has no branches", source)
	}
	made := p
	defer func() {
		if err != nil {
			made.Drop()
		}
	}()
	if p.store, err = tree.Make(ctx, h.storeDir(p.Record.ID), p.Record.Format); err != nil {
		return nil, err
	}
	if r == nil {
		err = tree.Scanner{Store: p.store}.Directory(ctx, source, p.found)
	} else {
		err = p.checkout(ctx, r, o)
	}
	if err != nil {
		return nil, err
	}
	return p, p.complete(ctx)
}

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// checkout finds what the guest's checkout has.
func (p *Plan) checkout(ctx context.Context, r *git.Repository, o Options) (err error) {
	p.Record.Head, p.Record.Branch = r.Head, r.Branch
	if o.Branch != "" {
		if err := r.Run(ctx, nil, nil, "check-ref-format", "--branch", o.Branch); err != nil {
			return banger.Errorf(banger.CodeInvalid, "%q is no name of a branch", o.Branch)
		}
		p.Record.Branch = o.Branch
	}
	if o.From != "" {
		p.Record.Head, err = r.Output(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", o.From+"^{commit}")
		if err != nil {
			return banger.Errorf(banger.CodeNotFound, "the repository at %s has no commit %q", r.Top, o.From)
		}
	}
	if p.Record.Head != "" {
		if err := p.store.Fetch(ctx, r, p.Record.Head, o.Depth); err != nil {
			return err
		}
	}
	if o.From != "" {
		return p.fromCommit(ctx)
	}
	s := tree.Scanner{Store: p.store, Untracked: o.Untracked}
	if err := s.Repository(ctx, r, "", p.found); err != nil {
		return err
	}
	p.Fresh = len(p.found.Blobs)
	return p.store.Adopt(ctx, r, p.found.Blobs)
}

// fromCommit makes the commit's tree what the guest gets.
func (p *Plan) fromCommit(ctx context.Context) (err error) {
	p.tree = true
	if p.found.Files, err = p.store.List(ctx, p.Record.Head); err != nil {
		return err
	}
	for path, e := range p.found.Files {
		if e.Mode == tree.ModeModule {
			p.found.Modules[path] = e.OID
			delete(p.found.Files, path)
		}
	}
	p.found.Index = p.store.Temporary("index")
	return p.store.Git.With("GIT_INDEX_FILE="+p.found.Index).Run(ctx, nil, nil, "read-tree", p.Record.Head)
}

// complete checks the paths, makes the tree of the baseline and counts.
func (p *Plan) complete(ctx context.Context) (err error) {
	for path := range p.found.Files {
		if why := tree.CheckPath(path); why != "" {
			p.Skip = append(p.Skip, fmt.Sprintf("%s: %s", tree.Quoted(path), why))
			delete(p.found.Files, path)
		}
	}
	r := p.Record
	if r.Lower, err = p.store.Write(ctx, p.found.Files); err != nil {
		return err
	}
	r.Baseline, r.Modules, r.Absent, r.Converted = r.Lower, p.found.Modules, p.found.Absent, p.found.Converted
	p.Files = len(p.found.Files)
	sizes, err := p.store.Git.Filter(ctx, p.oids(), "cat-file", "--batch-check=%(objectsize)")
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(sizes, "\n") {
		var n int64
		if _, err := fmt.Sscan(line, &n); err == nil {
			p.Bytes += n
		}
	}
	return nil
}

// oids lists the contents of all files, a line each, in the order of their paths.
func (p *Plan) oids() string {
	var s strings.Builder
	for _, path := range p.found.Files.Paths() {
		s.WriteString(p.found.Files[path].OID)
		s.WriteByte('\n')
	}
	return s.String()
}

// Image makes the file system of the baseline, whose files belong to a user of the guest. The caller closes the file,
// which has no name.
func (p *Plan) Image(ctx context.Context, uid, gid uint32) (f *os.File, err error) {
	if f, err = os.CreateTemp(p.home.dir(p.Record.ID), "tmp-image-"); err != nil {
		return nil, banger.Errorf(banger.CodeDisk, "making the file system: %w", banger.Cause(err))
	}
	os.Remove(f.Name())
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	packs := int64(0)
	names := packsOf(p.store)
	for _, name := range names {
		p.Record.Packs = append(p.Record.Packs, filepath.Base(name))
		if st, err := os.Stat(name); err == nil {
			packs += st.Size()
		}
	}
	i, err := newImage(f, p.Files+len(p.found.Dirs)+len(names), p.Bytes+packs, uid, gid, p.Record.Format)
	if err != nil {
		return nil, err
	}
	for _, dir := range p.found.Dirs {
		if _, err := i.directory(dir); err != nil {
			return nil, err
		}
	}
	for path := range p.found.Modules {
		if _, err := i.directory(path); err != nil {
			return nil, err
		}
	}
	if p.tree {
		err = p.fromStore(ctx, i)
	} else {
		err = p.fromFiles(ctx, i)
	}
	if err == nil && !p.Record.Plain {
		err = i.repository(ctx, p.store, p.Record, p.found.Index)
	}
	if err == nil {
		err = i.writer.Finish(i.root)
	}
	if err != nil {
		return nil, explainImage("the file system", err)
	}
	return f, nil
}

func (p *Plan) fromFiles(ctx context.Context, i *image) error {
	for _, path := range p.found.Files.Paths() {
		if err := i.file(p.top, path, p.found.Files[path]); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// fromStore puts the files of a tree of the store.
func (p *Plan) fromStore(ctx context.Context, i *image) error {
	paths, files := p.found.Files.Paths(), p.found.Files
	return p.store.Contents(ctx, p.oids(), func(n int, size int64, r io.Reader) error {
		path := paths[n]
		e := files[path]
		if e.Mode == tree.ModeLink {
			target, err := io.ReadAll(io.LimitReader(r, tree.MaxPath))
			if err != nil {
				return err
			}
			return i.link(path, string(target))
		}
		mode := uint32(0o644)
		if e.Mode == tree.ModeProgram {
			mode = 0o755
		}
		return i.stream(path, mode, p.Record.Created, r)
	})
}

// Keep stores the record durably, for a VM.
func (p *Plan) Keep(vm string) error {
	p.Record.VM = vm
	p.found.Close()
	if err := p.home.put(p.Record); err != nil {
		return err
	}
	p.kept = true
	return nil
}

// Drop removes what a plan has stored, unless it was kept.
func (p *Plan) Drop() {
	if !p.kept {
		os.RemoveAll(p.home.dir(p.Record.ID))
	}
}

// Forget removes a record that was kept, because the workspace was not made after all.
func (p *Plan) Forget() {
	p.kept = false
	p.Drop()
}

// maxIgnore bounds the rules of what to ignore that the host sends, in bytes.
const maxIgnore = 512 << 10

// Ignored returns the user's own rules of what git ignores, beside those in the tree: the global ones, and those of
// the repository's info/exclude, which come later and so count more.
func (h Home) Ignored(ctx context.Context, r *Record) ([]byte, error) {
	if r.Plain {
		return nil, nil
	}
	repo, err := git.Open(ctx, r.Source)
	if err != nil { // the rules are gone with the repository
		return nil, ctx.Err()
	}
	var rules []byte
	for _, path := range []string{tree.GlobalExcludes(ctx), filepath.Join(repo.Common, "info/exclude")} {
		if text, err := os.ReadFile(path); err == nil {
			rules = append(append(rules, text...), '\n')
		}
	}
	if len(rules) > maxIgnore {
		return nil, banger.Errorf(banger.CodeInvalid, "the rules of what git ignores have %d bytes, and at most %d are taken",
			len(rules), maxIgnore)
	}
	return rules, nil
}

// Tracked returns the paths that the host has brought in after the file system, in their order.
func (h Home) Tracked(ctx context.Context, r *Record) ([]string, error) {
	if r.Baseline == r.Lower {
		return nil, nil
	}
	s := tree.Open(h.storeDir(r.ID))
	now, err := s.List(ctx, r.Baseline)
	if err != nil {
		return nil, err
	}
	before, err := s.List(ctx, r.Lower)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(now.Paths(), func(path string) bool {
		_, was := before[path]
		return was
	}), nil
}
