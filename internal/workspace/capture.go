package workspace

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"banger"
	"banger/internal/git"
	"banger/internal/text"
	"banger/internal/tree"
)

// Bounds of what comes out of a guest.
const (
	maxEntries = 500_000
	maxContent = 16 << 30 // bytes in all
	maxNotes   = 100
)

// Capture is what a guest has made of a workspace, in a repository apart from the user's: the quarantine. Nothing in
// it has reached the user's repository, and nothing of it was executed.
type Capture struct {
	Record *Record
	Tree   string   // of the working tree, byte for byte
	Head   string   // the guest's commit, or "" before the first one
	Branch string   // of the guest's HEAD, or ""
	Heads  []Branch // of the guest, in the order of their names
	Notes  []string // what could not be taken, for the user

	store  tree.Store
	quar   tree.Store // the quarantine, which borrows the store's objects
	loose  looseGit
	lfs    []string // digests of changed files of Git LFS, whose contents are in the quarantine
	opened int      // entries so far
	size   int64
}

// Branch is a branch of a guest's repository.
type Branch struct{ Name, Commit string }

// Capture takes the changes of a guest, which come as the tar of a layer on the workspace's file system. The caller
// closes the capture.
func (h Home) Capture(ctx context.Context, r *Record, changes io.Reader) (c *Capture, err error) {
	h.Sweep()
	c = &Capture{Record: r, store: tree.Open(h.storeDir(r.ID)), Head: r.Head, Branch: r.Branch}
	made := c
	defer func() {
		if err != nil {
			made.Close()
		}
	}()
	if c.quar, err = c.borrow(ctx, "quarantine"); err != nil {
		return nil, err
	}
	if c.loose, err = c.newLooseGit(ctx); err != nil {
		return nil, err
	}
	if err := c.take(ctx, changes); err != nil {
		return nil, err
	}
	if c.Tree, err = c.quar.Git.Output(ctx, "rev-parse", "--verify", "refs/banger/work^{tree}"); err != nil {
		return nil, err
	}
	return c, c.commits(ctx)
}

// borrow makes a repository beside the store that has the objects of the store too.
func (c *Capture) borrow(ctx context.Context, name string) (tree.Store, error) {
	s, err := tree.Make(ctx, c.store.Temporary(name), c.Record.Format)
	if err != nil {
		return s, err
	}
	s.Git.Bounded = true
	err = os.MkdirAll(filepath.Join(s.Dir, "objects/info"), 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(s.Dir, "objects/info/alternates"), []byte(c.store.Dir+"/objects\n"), 0o600)
	}
	if err == nil {
		err = tree.CopyFile(filepath.Join(c.store.Dir, "shallow"), filepath.Join(s.Dir, "shallow"))
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		return s, banger.Errorf(banger.CodeDisk, "making a quarantine: %w", banger.Cause(err))
	}
	return s, nil
}

// Close removes the quarantine.
func (c *Capture) Close() {
	for _, dir := range []string{c.quar.Dir, c.loose.Dir} {
		if dir != "" {
			os.RemoveAll(dir)
		}
	}
}

// take reads the changes. git fast-import makes the working tree of them, on top of the file system's.
func (c *Capture) take(ctx context.Context, changes io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("connecting git: %w", err)
	}
	ended := make(chan error, 1)
	go func() { // ends with git
		ended <- c.quar.Git.Run(ctx, r, nil, "fast-import", "--quiet", "--done", "--date-format=raw")
		r.Close()
	}()
	out := bufio.NewWriterSize(w, 64<<10)
	fmt.Fprintf(out, "commit refs/banger/work\ncommitter banger <banger@localhost> 0 +0000\ndata 0\n\nM 040000 %s \"\"\n",
		c.Record.Lower)
	err = c.entries(ctx, tar.NewReader(changes), out)
	if err == nil {
		fmt.Fprint(out, "\ndone\n")
		out.Flush()
	} else {
		cancel()
	}
	w.Close()
	if gerr := <-ended; gerr != nil && (err == nil || errors.Is(err, errGit)) {
		return gerr
	}
	return err
}

// errGit means that git takes no more, and says why itself.
var errGit = errors.New("git has ended")

// entries reads the entries of the tar.
func (c *Capture) entries(ctx context.Context, in *tar.Reader, out *bufio.Writer) error {
	for {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var sick *banger.Error
		if errors.As(err, &sick) {
			return err // the guest's own words
		}
		if err != nil {
			return banger.Errorf(banger.CodeGuest, "the guest's changes are no tar: %w", err)
		}
		if c.opened++; c.opened > maxEntries {
			return banger.Errorf(banger.CodeGuest, "more than %d files changed in the guest", maxEntries).
				WithHint("let git ignore what is generated: .gitignore")
		}
		if c.size += h.Size; h.Size < 0 || c.size > maxContent {
			return banger.Errorf(banger.CodeGuest, "more than %d GiB changed in the guest", maxContent>>30).
				WithHint("let git ignore what is generated: .gitignore")
		}
		if err := c.entry(h, in, out); err != nil {
			return err
		}
	}
}

// entry takes one entry.
func (c *Capture) entry(h *tar.Header, in io.Reader, out *bufio.Writer) error {
	name := strings.TrimSuffix(h.Name, "/")
	dir, base := path.Split(name)
	if prefix, rest, ok := tree.GitPart(name); ok {
		if prefix != "" || h.Typeflag == tar.TypeDir {
			return nil // a repository within the working tree
		}
		return c.loose.take(rest, h, in)
	}
	removed, opaque := false, base == ".wh..wh..opq"
	if opaque {
		name = strings.TrimSuffix(dir, "/")
	} else if rest, ok := strings.CutPrefix(base, ".wh."); ok {
		name, removed = dir+rest, true
	}
	if name == ".git" || name == "" || name == "." {
		return nil
	}
	if why := tree.CheckPath(name); why != "" {
		c.note("%s was left out: %s", tree.Quoted(name), why)
		return nil
	}
	if removed || opaque {
		fmt.Fprintf(out, "D %s\n", escaped(name))
		return out.Flush()
	}
	return c.file(name, h, in, out)
}

// file takes a file, a program, a symlink or another name of a file.
func (c *Capture) file(name string, h *tar.Header, in io.Reader, out *bufio.Writer) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return nil
	case tar.TypeReg:
		mode := tree.ModeFile
		if h.Mode&0o111 != 0 {
			mode = tree.ModeProgram
		}
		fmt.Fprintf(out, "M %s inline %s\ndata %d\n", mode, escaped(name), h.Size)
		n, err := io.Copy(out, in)
		if n != h.Size && err == nil {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return c.copyError(name, err)
		}
		_, err = out.WriteString("\n")
		return err
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > tree.MaxPath || strings.ContainsRune(h.Linkname, 0) {
			c.note("%s was left out: its target is empty or too long", tree.Quoted(name))
			return nil
		}
		_, err := fmt.Fprintf(out, "M %s inline %s\ndata %d\n%s\n", tree.ModeLink, escaped(name), len(h.Linkname), h.Linkname)
		return err
	case tar.TypeLink:
		if why := tree.CheckPath(h.Linkname); why != "" {
			c.note("%s was left out: of its first name, %s", tree.Quoted(name), why)
			return nil
		}
		_, err := fmt.Fprintf(out, "C %s %s\n", escaped(h.Linkname), escaped(name))
		return err
	}
	c.note("%s was left out: it is no file and no symlink", tree.Quoted(name))
	return nil
}

func (c *Capture) copyError(name string, err error) error {
	var sick *banger.Error
	switch {
	case errors.As(err, &sick):
		return err
	case errors.Is(err, syscall.EPIPE), errors.Is(err, os.ErrClosed):
		return errGit
	}
	return banger.Errorf(banger.CodeGuest, "the guest's file %s did not come whole: %w", tree.Quoted(name), err)
}

// Note keeps a remark of the guest, for the user.
func (c *Capture) Note(said string) { c.note("%s", said) }

// note keeps a remark for the user.
func (c *Capture) note(format string, args ...any) {
	if len(c.Notes) < maxNotes {
		c.Notes = append(c.Notes, text.Limit(fmt.Sprintf(format, args...), 300))
	}
}

// escaped returns a path as git fast-import reads it, between quotes.
func escaped(path string) string {
	if q := tree.Quoted(path); q[0] == '"' {
		return q
	}
	return `"` + path + `"`
}

// Change is one file that differs.
type Change struct {
	Status string // A, D, M, T, or R and C with the similarity in percent
	Path   string
	From   string // the earlier path of R and C
}

// Changes returns how the guest's working tree differs from the baseline.
func (c *Capture) Changes(ctx context.Context) ([]Change, error) {
	return changesBetween(ctx, c.quar.Git, c.Record.Baseline, c.Tree)
}

// Differences is Changes with both sides of each file.
func (c *Capture) Differences(ctx context.Context) ([]tree.Difference, error) {
	return c.quar.Differences(ctx, c.Record.Baseline, c.Tree)
}

// Content returns what a file of a difference has, up to a number of bytes.
func (c *Capture) Content(ctx context.Context, e tree.Entry, most int64) (tree.Content, error) {
	return c.quar.Content(ctx, e, most)
}

// changesBetween returns how two trees differ. Renamed files are one change, unless g is set to diff.renames=false.
func changesBetween(ctx context.Context, g git.Git, before, after string) (list []Change, err error) {
	fields, err := g.Fields(ctx, "", "diff", "--name-status", "-z", "--no-ext-diff", before, after)
	if err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(fields); i += 2 {
		change := Change{Status: fields[i], Path: fields[i+1]}
		if strings.ContainsAny(change.Status[:1], "RC") && i+2 < len(fields) {
			change.From, change.Path = fields[i+1], fields[i+2]
			i++
		}
		list = append(list, change)
	}
	return list, nil
}

// Patch writes how the guest's working tree differs from the baseline, as a patch that git apply takes, binary files
// included. With stat it writes only how many lines of each file differ.
func (c *Capture) Patch(ctx context.Context, w io.Writer, stat bool) error {
	args := []string{"diff", "--binary", "--full-index", "-M", "--no-ext-diff", "--no-textconv"}
	if stat {
		args = []string{"diff", "--stat", "--no-ext-diff", "--no-textconv"}
	}
	return c.quar.Git.Run(ctx, nil, w, append(args, c.Record.Baseline, c.Tree)...)
}
