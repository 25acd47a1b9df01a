// Package tree has trees of files as git keeps them, byte for byte as they are in working trees: it scans working
// trees, keeps contents in stores of banger's own, and merges. A store never needs the user's repository again.
//
// The package must not know guests, nor what a tree is for.
package tree

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/git"
)

// errNotDir is the error for a path through a file.
var errNotDir error = unix.ENOTDIR

// Store is a bare repository of banger's own. It has the baselines of one workspace, and needs nothing of the user's
// repository. Its references are HEAD and one branch, as the guest has them.
type Store struct {
	Git git.Git // runs in the store
	Dir string
}

// Open returns a store that is there.
func Open(dir string) Store {
	return Store{Dir: dir, Git: git.Git{Dir: dir, Env: []string{"GIT_DIR=" + dir}}}
}

// Make makes an empty store with objects of a format, sha1 or sha256.
func Make(ctx context.Context, dir, format string) (Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Store{}, banger.Errorf(banger.CodeDisk, "making %s: %w", dir, banger.Cause(err))
	}
	s := Open(dir)
	args := []string{"init", "--bare", "--quiet", "--template=", "--object-format=" + format}
	if err := s.Git.Run(ctx, nil, nil, args...); err != nil {
		return Store{}, err
	}
	return s, nil
}

// Temporary returns the path of a file that does not exist, in the store.
func (s Store) Temporary(name string) string {
	f, err := os.CreateTemp(s.Dir, "tmp-"+name+"-")
	if err != nil {
		return filepath.Join(s.Dir, "tmp-"+name)
	}
	f.Close()
	os.Remove(f.Name())
	return f.Name()
}

// Sweep removes what a run that was killed has left, once it is a day old: other runs may use the store now.
func (s Store) Sweep() {
	list, _ := filepath.Glob(filepath.Join(s.Dir, "tmp-*"))
	for _, path := range list {
		if st, err := os.Lstat(path); err == nil && time.Since(st.ModTime()) > 24*time.Hour {
			os.RemoveAll(path)
		}
	}
}

// Blob keeps a content, and returns its object.
func (s Store) Blob(ctx context.Context, r io.Reader) (oid string, err error) {
	var out strings.Builder
	err = s.Git.Run(ctx, r, &out, "hash-object", "-w", "--no-filters", "--stdin")
	return strings.TrimSpace(out.String()), err
}

// BlobsOf keeps the contents of files below a directory as they are, and returns their objects.
func (s Store) BlobsOf(ctx context.Context, top string, paths []string) ([]string, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	oids := make([]string, len(paths))
	var lines []string // those of paths without a line end, which git takes all at once
	var places []int
	for i, path := range paths {
		if !strings.ContainsAny(path, "\n\r") && path[0] != '"' {
			lines, places = append(lines, path), append(places, i)
			continue
		}
		f, err := os.Open(filepath.Join(top, path))
		if err != nil {
			return nil, banger.Errorf(banger.CodeDisk, "reading %s: %w", path, banger.Cause(err))
		}
		oids[i], err = s.Blob(ctx, f)
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	if len(lines) == 0 {
		return oids, nil
	}
	g := s.Git
	g.Dir = top
	out, err := g.Filter(ctx, strings.Join(lines, "\n")+"\n", "hash-object", "-w", "--no-filters", "--stdin-paths")
	if err != nil {
		return nil, err
	}
	got := strings.Split(out, "\n")
	if len(got) != len(lines) {
		return nil, fmt.Errorf("git has hashed %d of %d files", len(got), len(lines))
	}
	for i, oid := range got {
		oids[places[i]] = oid
	}
	return oids, nil
}

// Write keeps a listing as a tree, and returns its object. Contents that the store does not have may come later.
func (s Store) Write(ctx context.Context, l Listing) (string, error) {
	index := s.Temporary("index")
	defer os.Remove(index)
	var lines strings.Builder
	for _, path := range l.Paths() {
		fmt.Fprintf(&lines, "%s %s\t%s\x00", l[path].Mode, l[path].OID, path)
	}
	g := s.Git.With("GIT_INDEX_FILE=" + index)
	if _, err := g.Filter(ctx, lines.String(), "update-index", "--add", "-z", "--index-info"); err != nil {
		return "", err
	}
	return g.Output(ctx, "write-tree", "--missing-ok")
}

// List returns the listing of a tree.
func (s Store) List(ctx context.Context, tree string) (Listing, error) {
	lines, err := s.Git.Fields(ctx, "", "ls-tree", "-r", "-z", "--full-tree", tree)
	if err != nil {
		return nil, err
	}
	l := Listing{}
	for _, line := range lines {
		head, path, ok := strings.Cut(line, "\t")
		words := strings.Fields(head) // mode, type, object
		if !ok || len(words) != 3 {
			return nil, fmt.Errorf("git lists a tree as %q", line)
		}
		l[path] = Entry{words[0], words[2]}
	}
	return l, nil
}

// Fetch brings a commit of a repository, and depth commits of its history, into the store. It does nothing for a
// commit that is there.
func (s Store) Fetch(ctx context.Context, r *git.Repository, commit string, depth int) error {
	if s.Git.Run(ctx, nil, nil, "cat-file", "-e", commit+"^{commit}") == nil {
		return nil
	}
	serve := "git -c uploadpack.allowAnySHA1InWant=true -c core.hooksPath=/dev/null " +
		"-c core.fsmonitor=false -c core.alternateRefsCommand=true upload-pack"
	args := []string{"fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc", "--upload-pack", serve}
	if depth > 0 {
		args = append(args, fmt.Sprint("--depth=", depth))
	}
	return s.Git.Run(ctx, nil, nil, append(args, "--", r.Top, commit)...)
}

// Adopt copies those of some objects that a repository has into a pack of the store. An index may name objects that
// are not there: git add -N does that.
func (s Store) Adopt(ctx context.Context, r *git.Repository, oids []string) error {
	if len(oids) == 0 {
		return nil
	}
	known, err := r.Filter(ctx, strings.Join(oids, "\n")+"\n", "cat-file", "--batch-check=%(objectname)")
	if err != nil {
		return err
	}
	oids = slices.DeleteFunc(strings.Split(known, "\n"), func(l string) bool { return strings.HasSuffix(l, " missing") })
	if len(oids) == 0 {
		return nil
	}
	from, to := []string{"pack-objects", "--quiet", "--stdout"}, []string{"index-pack", "--stdin"}
	err = git.Pipe(ctx, r.Git, from, strings.NewReader(strings.Join(oids, "\n")+"\n"), s.Git, to, io.Discard)
	var failed *git.Failure
	if errors.As(err, &failed) {
		return banger.Errorf(banger.CodeInvalid, "the repository at %s lacks objects: %s", r.Top, failed.Said).
			WithHint("see: git fsck")
	}
	return err
}

// Contents calls take with each object of a list, a line each.
func (s Store) Contents(ctx context.Context, oids string, take func(n int, size int64, r io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { // ends with git
		err := s.Git.Run(ctx, strings.NewReader(oids), w, "cat-file", "--batch")
		w.CloseWithError(err)
		ended <- err
	}()
	err := each(bufio.NewReaderSize(r, 64<<10), take)
	if err != nil {
		cancel()
	}
	r.CloseWithError(io.ErrClosedPipe)
	if gerr := <-ended; err == nil {
		err = gerr
	}
	return err
}

// each reads the answers of git cat-file --batch.
func each(r *bufio.Reader, take func(n int, size int64, r io.Reader) error) error {
	for n := 0; ; n++ {
		line, err := r.ReadString('\n')
		if err == io.EOF && line == "" {
			return nil
		}
		var oid, kind string
		var size int64
		if _, serr := fmt.Sscan(line, &oid, &kind, &size); err != nil || serr != nil {
			return fmt.Errorf("git says of an object: %q", strings.TrimSpace(line))
		}
		content := io.LimitReader(r, size)
		if err := take(n, size, content); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, content); err != nil {
			return err
		}
		if _, err := r.Discard(1); err != nil {
			return fmt.Errorf("git ended within an object: %w", err)
		}
	}
}

// WriteOut writes the content of an entry to a new file, or makes the symlink.
func (s Store) WriteOut(ctx context.Context, e Entry, at string) error {
	if e.Mode == ModeLink {
		target, err := s.Git.Bytes(ctx, "", "cat-file", "blob", e.OID)
		if err == nil {
			err = os.Symlink(string(target), at)
		}
		return explainWrite(err)
	}
	mode := fs.FileMode(0o666)
	if e.Mode == ModeProgram {
		mode = 0o777
	}
	f, err := os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return explainWrite(err)
	}
	err = s.Git.Run(ctx, nil, f, "cat-file", "blob", e.OID)
	return explainWrite(errors.Join(err, f.Sync(), f.Close()))
}

func explainWrite(err error) error {
	var sick *banger.Error
	var failed *git.Failure
	if err == nil || errors.As(err, &sick) || errors.As(err, &failed) {
		return err
	}
	return banger.Errorf(banger.CodeDisk, "writing a file of the workspace: %w", banger.Cause(err))
}
