package tree

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/git"
)

// The modes of entries in trees of git.
const (
	ModeFile    = "100644"
	ModeProgram = "100755"
	ModeLink    = "120000"
	ModeModule  = "160000" // the commit of a submodule
)

// Entry is one file of a tree.
type Entry struct {
	Mode string
	OID  string // of the content, byte for byte as in the working tree
}

// Listing is a tree as a map of paths.
type Listing map[string]Entry

// Paths returns the paths in git's order.
func (l Listing) Paths() []string {
	list := make([]string, 0, len(l))
	for p := range l {
		list = append(list, p)
	}
	slices.Sort(list)
	return list
}

// Scanner finds what a working tree has, and keeps in a store what the user's repository does not have.
type Scanner struct {
	Store     Store
	Untracked bool // also what git does not track, unless it is ignored
}

// Found is what a scan has found.
type Found struct {
	Files   Listing           // also those of submodules
	Modules map[string]string // commits of submodules, by their paths
	Absent  []string          // tracked paths that a sparse checkout leaves out
	// Converted are unchanged files whose bytes differ from those that git keeps of them.
	Converted []string
	Dirs      []string // those of a directory that is no repository
	Blobs     []string // what the index has of files that are not as in the commit
	Index     string   // a refreshed copy of the repository's index, in the store
}

// Repository scans a working tree whose paths get a prefix, which is "" or ends with a slash.
func (s Scanner) Repository(ctx context.Context, r *git.Repository, prefix string, into *Found) error {
	index := s.Store.Temporary("index")
	if err := CopyFile(filepath.Join(r.Dir, "index"), index); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return banger.Errorf(banger.CodeDisk, "reading the index of %s: %w", r.Top, banger.Cause(err))
	}
	g := r.With("GIT_INDEX_FILE=" + index)
	var failed *git.Failure
	if err := g.Run(ctx, nil, nil, "update-index", "-q", "--really-refresh", "--ignore-submodules"); err != nil &&
		!(errors.As(err, &failed) && failed.Code == 1) { // 1 means that something is not up to date
		return err
	}
	staged, err := s.staged(ctx, g, r, prefix, into)
	if err != nil {
		return err
	}
	fresh, err := s.changed(ctx, g, r, staged)
	if err != nil {
		return err
	}
	for path := range fresh {
		if e := staged[path]; e.OID != "" && prefix == "" {
			into.Blobs = append(into.Blobs, e.OID)
		}
	}
	if err := s.content(ctx, r, prefix, staged, fresh, into); err != nil {
		return err
	}
	if prefix == "" {
		into.Index = index
	} else {
		defer os.Remove(index)
	}
	for path, e := range staged {
		if e.Mode == ModeModule {
			if err := s.module(ctx, r, path, prefix, e.OID, into); err != nil {
				return err
			}
		}
	}
	return nil
}

// staged returns what the index has, without what a sparse checkout leaves out.
func (s Scanner) staged(ctx context.Context, g git.Git, r *git.Repository, prefix string, into *Found) (Listing,
	error) {
	lines, err := g.Fields(ctx, "", "ls-files", "-z", "-t", "--stage")
	if err != nil {
		return nil, err
	}
	list := Listing{}
	for _, line := range lines {
		head, path, ok := strings.Cut(line, "\t")
		words := strings.Fields(head) // tag, mode, object, stage
		if !ok || len(words) != 4 {
			return nil, fmt.Errorf("git lists the index of %s as %q", r.Top, line)
		}
		if words[0] == "S" {
			into.Absent = append(into.Absent, prefix+path)
			continue
		}
		if words[3] != "0" && prefix == "" { // one side of a conflict
			into.Blobs = append(into.Blobs, words[2])
		}
		list[path] = Entry{words[1], words[2]}
	}
	return list, nil
}

// changed returns the paths whose content in the working tree is not known to be that of the index: true for those
// that changed or are in no commit yet, and false for those that git may only have converted. It adds untracked files
// to staged.
func (s Scanner) changed(ctx context.Context, g git.Git, r *git.Repository, staged Listing) (map[string]bool, error) {
	fresh := map[string]bool{}
	differ, err := g.Fields(ctx, "", "diff-files", "-z", "--name-only", "--no-renames", "--ignore-submodules=all")
	if err != nil {
		return nil, err
	}
	args := []string{"diff-index", "-z", "--name-only", "--no-renames", "--cached", "--ignore-submodules=all", r.Head}
	if r.Head != "" { // what is staged may be in no commit, so the store must have it
		more, err := g.Fields(ctx, "", args...)
		if err != nil {
			return nil, err
		}
		differ = append(differ, more...)
	} else {
		differ = staged.Paths()
	}
	converted, err := s.converted(ctx, g, r, staged)
	if err != nil {
		return nil, err
	}
	for path := range converted {
		fresh[path] = false
	}
	for _, path := range differ {
		if e, ok := staged[path]; ok && e.Mode != ModeModule {
			fresh[path] = !(converted[path] == byLFS && isPointerTo(ctx, g, e.OID, filepath.Join(r.Top, path)))
		}
	}
	if s.Untracked {
		others, err := g.Set("core.excludesFile="+GlobalExcludes(ctx)).Fields(ctx, "", "ls-files", "-z", "--others",
			"--exclude-standard")
		if err != nil {
			return nil, err
		}
		for _, path := range others {
			if !strings.HasSuffix(path, "/") { // a repository of its own
				staged[path], fresh[path] = Entry{Mode: ModeFile}, true
			}
		}
	}
	return fresh, nil
}

// What converts files between a working tree and a repository.
const (
	byGit = iota + 1 // line ends, encodings, or a filter that is not known here
	byLFS
)

// converted returns the paths whose bytes in the working tree may differ from those that git keeps, with what
// converts them.
func (s Scanner) converted(ctx context.Context, g git.Git, r *git.Repository, staged Listing) (map[string]int, error) {
	attributes := r.CRLF != ""
	if _, err := os.Lstat(filepath.Join(r.Common, "info/attributes")); err == nil {
		attributes = true
	}
	for path := range staged {
		attributes = attributes || path == ".gitattributes" || strings.HasSuffix(path, "/.gitattributes")
	}
	if !attributes {
		return nil, nil
	}
	paths := staged.Paths()
	answers, err := g.Fields(ctx, strings.Join(paths, "\x00")+"\x00", "check-attr", "-z", "--stdin", "text", "eol",
		"filter", "ident", "working-tree-encoding")
	if err != nil {
		return nil, err
	}
	converted := map[string]int{}
	for i := 0; i+2 < len(answers); i += 3 {
		path, name, value := answers[i], answers[i+1], answers[i+2]
		switch mode := staged[path].Mode; {
		case mode == ModeLink || mode == ModeModule:
		case name == "filter" && value == "lfs":
			converted[path] = byLFS
		case value == "unset" || value == "unspecified" && !(name == "text" && r.CRLF != ""):
		case converted[path] == 0:
			converted[path] = byGit
		}
	}
	return converted, nil
}

// lfsPointer is what Git LFS keeps of a file: its digest and its size (git-lfs, docs/spec.md).
var lfsPointer = regexp.MustCompile(`(?m)^oid sha256:([0-9a-f]{64})\nsize (\d+)$`)

// isPointerTo reports whether an object is the pointer of Git LFS to the content of a file. Git cannot tell without
// the filter, which is a program.
func isPointerTo(ctx context.Context, g git.Git, oid, path string) bool {
	size, err := g.Output(ctx, "cat-file", "-s", oid)
	if n, nerr := strconv.Atoi(size); err != nil || nerr != nil || n > 1024 {
		return false
	}
	text, err := g.Output(ctx, "cat-file", "blob", oid)
	m := lfsPointer.FindStringSubmatch(text)
	if err != nil || m == nil {
		return false
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	return err == nil && strconv.FormatInt(n, 10) == m[2] && hex.EncodeToString(sum.Sum(nil)) == m[1]
}

// content finds the content of each file. That of fresh ones is read and kept in the store.
func (s Scanner) content(ctx context.Context, r *git.Repository, prefix string, staged Listing, fresh map[string]bool,
	into *Found) error {
	var read []string
	for path, e := range staged {
		if e.Mode == ModeModule {
			continue
		}
		if _, ok := fresh[path]; !ok {
			into.Files[prefix+path] = e
			continue
		}
		read = append(read, path)
	}
	slices.Sort(read)
	if err := s.Read(ctx, r.Top, prefix, read, into); err != nil {
		return err
	}
	for _, path := range read {
		if now, ok := into.Files[prefix+path]; ok && !fresh[path] && now.OID != staged[path].OID {
			into.Converted = append(into.Converted, prefix+path)
		}
	}
	return nil
}

// Read keeps the content of files below a directory in the store. Files that are gone are left out, and so is what is
// no file.
func (s Scanner) Read(ctx context.Context, top, prefix string, paths []string, into *Found) error {
	var regular []string
	for _, path := range paths {
		at := filepath.Join(top, path)
		st, err := os.Lstat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, errNotDir), err == nil && !isContent(st.Mode()):
			continue
		case err != nil:
			return banger.Errorf(banger.CodeDisk, "reading %s: %w", at, banger.Cause(err))
		case st.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(at)
			if err != nil {
				return banger.Errorf(banger.CodeDisk, "reading %s: %w", at, banger.Cause(err))
			}
			oid, err := s.Store.Blob(ctx, strings.NewReader(target))
			if err != nil {
				return err
			}
			into.Files[prefix+path] = Entry{ModeLink, oid}
		default:
			mode := ModeFile
			if st.Mode()&0o100 != 0 {
				mode = ModeProgram
			}
			into.Files[prefix+path] = Entry{Mode: mode}
			regular = append(regular, path)
		}
	}
	oids, err := s.Store.BlobsOf(ctx, top, regular)
	if err != nil {
		return err
	}
	for i, path := range regular {
		into.Files[prefix+path] = Entry{into.Files[prefix+path].Mode, oids[i]}
	}
	return nil
}

func isContent(m fs.FileMode) bool { return m.IsRegular() || m&fs.ModeSymlink != 0 }

// module scans a submodule whose working tree is there.
func (s Scanner) module(ctx context.Context, r *git.Repository, path, prefix, commit string, into *Found) error {
	top := filepath.Join(r.Top, path)
	sub, err := git.Open(ctx, top)
	if errors.Is(err, git.ErrNone) || err == nil && sub.Top != top || errors.Is(err, fs.ErrNotExist) {
		into.Modules[prefix+path] = commit // its working tree is not there
		return nil
	}
	if err != nil {
		return err
	}
	into.Modules[prefix+path] = commit
	if sub.Head != "" { // the store must have the contents of its files
		if err := s.Store.Fetch(ctx, sub, sub.Head, 1); err != nil {
			return err
		}
	}
	return s.Repository(ctx, sub, prefix+path+"/", into)
}

// Directory scans a directory that is no repository.
func (s Scanner) Directory(ctx context.Context, top string, into *Found) error {
	var paths []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return banger.Errorf(banger.CodeDisk, "reading %s: %w", path, banger.Cause(err))
		case ctx.Err() != nil:
			return ctx.Err()
		case IsGitName(d.Name()) && d.IsDir():
			return fs.SkipDir
		case !d.IsDir():
			paths = append(paths, strings.TrimPrefix(path, top+"/"))
		case path != top:
			into.Dirs = append(into.Dirs, strings.TrimPrefix(path, top+"/"))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.Read(ctx, top, "", paths, into)
}

// GlobalExcludes returns the path of the user's own rules of what to ignore (gitignore(5)).
func GlobalExcludes(ctx context.Context) string {
	if path := git.OfUser(ctx, "core.excludesFile"); path != "" {
		return path
	}
	base := os.Getenv("XDG_CONFIG_HOME")
	if base == "" {
		base = filepath.Join(os.Getenv("HOME"), ".config")
	}
	return filepath.Join(base, "git/ignore")
}

func CopyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// NewFound returns an empty Found.
func NewFound() *Found { return &Found{Files: Listing{}, Modules: map[string]string{}} }

// Close removes the copy of the index.
func (f *Found) Close() {
	if f.Index != "" {
		os.Remove(f.Index)
	}
}
