package workspace

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banger/internal/git"
	"banger/internal/tree"
)

// Sync is what the host has changed since the baseline, merged with what the guest has changed. Nothing is stored
// before Keep.
type Sync struct {
	Delta
	Conflicts []tree.Conflict // if there are any, nothing must go into the guest
	Head      string          // the commit of the host's HEAD now, or ""
	news      bool            // Head is new to the guest
	Moves     bool            // the guest's branch moves to Head, because the guest has no commits of its own

	capture *Capture
	host    string   // the tree of the host's side
	packs   []string // for the guest's repository
	found   *tree.Found
}

// Sync finds what the host's side has that the guest's side does not have yet.
func (c *Capture) Sync(ctx context.Context) (s *Sync, err error) {
	s = &Sync{capture: c}
	found, root, repo, err := hostNow(ctx, c.store, c.Record)
	if err != nil {
		return nil, err
	}
	s.found, s.host = found, root
	s.store = c.quar
	if s.files, s.Conflicts, err = tree.Merge(ctx, c.quar, c.Record.Baseline, c.Tree, root); err != nil {
		return nil, err
	}
	if repo != nil {
		if err := s.repository(ctx, repo, found); err != nil {
			return nil, err
		}
	}
	if len(s.Conflicts) > 0 {
		return s, nil
	}
	becomes, err := c.quar.Write(ctx, s.files)
	if err != nil {
		return nil, err
	}
	s.Changes, err = changesBetween(ctx, c.quar.Git.Set("diff.renames=false"), c.Tree, becomes)
	return s, err
}

// repository finds what the guest's repository needs to know the host's latest commit.
func (s *Sync) repository(ctx context.Context, repo *git.Repository, found *tree.Found) error {
	c := s.capture
	s.Head = repo.Head
	has := c.Head
	if c.own() {
		has = c.Record.latest()
	}
	if repo.Head == "" || repo.Head == has {
		return nil
	}
	s.news = true
	if err := c.store.Adopt(ctx, repo, found.Blobs); err != nil {
		return err
	}
	for _, pack := range packsOf(c.store) {
		if !slices.Contains(c.Record.Packs, filepath.Base(pack)) {
			s.packs = append(s.packs, pack)
		}
	}
	s.Moves = !c.own() && c.Branch != "" && c.Branch == c.Record.Branch
	return nil
}

// syncDepth is how many commits of the history come with a newer one.
const syncDepth = 50

func packsOf(s tree.Store) []string {
	list, _ := filepath.Glob(filepath.Join(s.Dir, "objects/pack/pack-*"))
	return list
}

// Nothing reports whether the guest has all of the host already.
func (s *Sync) Nothing() bool {
	return len(s.Changes) == 0 && len(s.Conflicts) == 0 && s.host == s.capture.Record.Baseline && !s.news
}

// Delta is how a guest's working tree is to change.
type Delta struct {
	Changes []Change
	store   tree.Store
	files   tree.Listing // what it becomes
}

// Later returns what the host has brought in after the file system of a workspace.
func (h Home) Later(ctx context.Context, r *Record) (d Delta, err error) {
	d.store = tree.Open(h.storeDir(r.ID))
	if d.files, err = d.store.List(ctx, r.Baseline); err != nil {
		return d, err
	}
	d.Changes, err = changesBetween(ctx, d.store.Git.Set("diff.renames=false"), r.Lower, r.Baseline)
	return d, err
}

// Removed returns the paths that go from the guest's working tree.
func (d Delta) Removed() (list []string) {
	for _, c := range d.Changes {
		if _, stays := d.files[c.Path]; !stays {
			list = append(list, c.Path)
		}
	}
	return list
}

// Write writes a tar of the files that come or change, with these owners.
func (d Delta) Write(ctx context.Context, out io.Writer, uid, gid uint32) error {
	w := newSyncTar(out, uid, gid)
	if err := d.write(ctx, w); err != nil {
		return err
	}
	return w.Close()
}

func (d Delta) write(ctx context.Context, w *syncTar) error {
	var names []string
	var oids strings.Builder
	for _, c := range d.Changes {
		if e, stays := d.files[c.Path]; stays {
			names = append(names, c.Path)
			oids.WriteString(e.OID + "\n")
		}
	}
	if len(names) == 0 {
		return nil
	}
	return d.store.Contents(ctx, oids.String(), func(n int, size int64, r io.Reader) error {
		return w.entry(names[n], d.files[names[n]], size, r)
	})
}

// Write writes a tar of what comes into the guest's working tree and into its repository, with these owners.
func (s *Sync) Write(ctx context.Context, out io.Writer, uid, gid uint32) error {
	w := newSyncTar(out, uid, gid)
	if err := s.write(ctx, w); err != nil {
		return err
	}
	for _, file := range s.packs {
		if err := w.copy(".git/objects/pack/"+filepath.Base(file), file); err != nil {
			return err
		}
	}
	if s.news {
		if err := w.copy(".git/shallow", filepath.Join(s.capture.store.Dir, "shallow")); err != nil && !os.IsNotExist(err) {
			return err
		}
		if err := w.text(".git/refs/banger/host", s.Head+"\n"); err != nil {
			return err
		}
	}
	if s.Moves {
		if err := w.text(".git/refs/heads/"+s.capture.Record.Branch, s.Head+"\n"); err != nil {
			return err
		}
		if err := w.copy(".git/index", s.found.Index); err != nil {
			return err
		}
	}
	return w.Close()
}

// Close removes what a Sync has beside its capture.
func (s *Sync) Close() { s.found.Close() }

// Keep stores the host's side as the baseline, and returns its name for the guest.
func (s *Sync) Keep(home Home) (baseline string, err error) {
	r := *s.capture.Record
	if r.Use(s.host); s.news {
		r.Later = append(slices.DeleteFunc(slices.Clone(r.Later), func(c string) bool { return c == s.Head }), s.Head)
	}
	s.capture.store.Sweep()
	return s.host, home.put(&r)
}

// syncTar writes files of a working tree, with the directories on the way to them.
type syncTar struct {
	*tar.Writer
	uid, gid int
	made     map[string]bool
}

func newSyncTar(out io.Writer, uid, gid uint32) *syncTar {
	return &syncTar{Writer: tar.NewWriter(out), uid: int(uid), gid: int(gid), made: map[string]bool{".": true}}
}

func (w *syncTar) header(name string, mode int64) (*tar.Header, error) {
	h := &tar.Header{Name: name, Mode: mode, Uid: w.uid, Gid: w.gid, ModTime: time.Now(), Typeflag: tar.TypeReg,
		Format: tar.FormatPAX}
	var missing []string
	for dir := path.Dir(name); !w.made[dir]; dir = path.Dir(dir) {
		missing = append(missing, dir)
	}
	for _, dir := range slices.Backward(missing) {
		w.made[dir] = true
		if err := w.WriteHeader(&tar.Header{Name: dir + "/", Mode: 0o755, Uid: w.uid, Gid: w.gid, ModTime: time.Now(),
			Typeflag: tar.TypeDir, Format: tar.FormatPAX}); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (w *syncTar) entry(name string, e tree.Entry, size int64, r io.Reader) error {
	h, err := w.header(name, map[string]int64{tree.ModeProgram: 0o755, tree.ModeFile: 0o644, tree.ModeLink: 0o777}[e.Mode])
	if err != nil {
		return err
	}
	if e.Mode == tree.ModeLink {
		target, err := io.ReadAll(io.LimitReader(r, tree.MaxPath))
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, string(target)
		return w.WriteHeader(h)
	}
	h.Size = size
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return err
}

func (w *syncTar) text(name, content string) error {
	return w.entry(name, tree.Entry{Mode: tree.ModeFile}, int64(len(content)), strings.NewReader(content))
}

func (w *syncTar) copy(name, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return w.entry(name, tree.Entry{Mode: tree.ModeFile}, st.Size(), f)
}

// HostState is how the host's side of a workspace is now.
type HostState struct {
	Changes []Change `json:"changes,omitempty"` // since the baseline
	Head    string   `json:"head,omitempty"`
	Branch  string   `json:"branch,omitempty"`
	Moved   bool     `json:"moved,omitempty"` // HEAD is another commit than the guest's checkout began at
}

// Host returns how the host's side of a workspace is now.
func (h Home) Host(ctx context.Context, r *Record) (s HostState, err error) {
	store := tree.Open(h.storeDir(r.ID))
	found, root, repo, err := hostNow(ctx, store, r)
	if err != nil {
		return s, err
	}
	found.Close()
	if repo != nil {
		s.Head, s.Branch, s.Moved = repo.Head, repo.Branch, repo.Head != r.latest()
	}
	s.Changes, err = changesBetween(ctx, store.Git, r.Baseline, root)
	return s, err
}

// Moved returns a sentence for the user if the host's HEAD is another commit than that of a VM's workspace, or "". It
// looks only at HEAD, and is quick.
func (h Home) Moved(ctx context.Context, vm string) string {
	for _, r := range h.All() {
		if r.VM != vm || r.Plain {
			continue
		}
		repo, err := git.Open(ctx, r.Source)
		if err == nil && repo.Head != r.latest() {
			return fmt.Sprintf("the repository at %s has moved to %s since workspace %s was prepared at %s", r.Source,
				short(repo.Head), r.Name, short(r.latest()))
		}
	}
	return ""
}

func short(oid string) string {
	if oid == "" {
		return "no commit"
	}
	return oid[:min(12, len(oid))]
}
