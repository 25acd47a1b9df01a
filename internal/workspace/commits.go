package workspace

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"banger"
	"banger/internal/git"
	"banger/internal/tree"
)

// Bounds of what a guest's own repository may have.
const (
	maxRefs     = 1000
	maxRefFile  = 1 << 20 // bytes
	maxPack     = 4 << 30 // bytes of one pack or object
	maxObjects  = 2_000_000
	maxNewPacks = 200
)

// looseGit is what the guest's repository has that the baseline did not have. Only objects and references are taken:
// no configuration, hook, attribute or index of a guest is ever written to this host's disk.
type looseGit struct {
	tree.Store
	refs   map[string]string // what their files say
	packed string            // the file packed-refs, if the guest has written it
	packs  []string
	any    bool // an object or a reference came
}

// newLooseGit makes a repository for the guest's objects, beside the quarantine.
func (c *Capture) newLooseGit(ctx context.Context) (looseGit, error) {
	s, err := c.borrow(ctx, "objects")
	return looseGit{Store: s, refs: map[string]string{}}, err
}

var (
	looseObject = regexp.MustCompile(`^objects/[0-9a-f]{2}/([0-9a-f]{38}|[0-9a-f]{62})$`)
	packFile    = regexp.MustCompile(`^objects/pack/pack-[0-9a-f]{40,64}\.pack$`)
	headName    = regexp.MustCompile(`^refs/heads/[!-~\x80-\xff]{1,250}$`)
	objectName  = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
)

// take takes one file of the guest's repository, or leaves it.
func (l *looseGit) take(name string, h *tar.Header, in io.Reader) error {
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	switch {
	case looseObject.MatchString(name), packFile.MatchString(name):
		if h.Size > maxPack {
			return banger.Errorf(banger.CodeGuest, "the guest's repository has an object of more than %d GiB", maxPack>>30)
		}
		if packFile.MatchString(name) {
			if l.packs = append(l.packs, name); len(l.packs) > maxNewPacks {
				return banger.Errorf(banger.CodeGuest, "the guest's repository has more than %d new packs", maxNewPacks).
					WithHint("run in the guest: git repack -ad")
			}
		}
		l.any = true
		return l.write(name, in)
	case name == "HEAD", headName.MatchString(name), name == "packed-refs":
		content, err := io.ReadAll(io.LimitReader(in, maxRefFile))
		if err != nil {
			return banger.Errorf(banger.CodeGuest, "the guest's references did not come whole: %w", err)
		}
		l.any = true
		if name == "packed-refs" {
			l.packed = string(content) + "\n"
		} else if len(l.refs) < maxRefs {
			l.refs[name] = strings.TrimSpace(string(content))
		}
	}
	return nil
}

// write writes a file of objects, which nobody has checked yet.
func (l *looseGit) write(name string, in io.Reader) error {
	at := filepath.Join(l.Dir, name)
	err := os.MkdirAll(filepath.Dir(at), 0o700)
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			_, err = io.Copy(f, in)
			err = errors.Join(err, f.Close())
		}
	}
	var sick *banger.Error
	if err != nil && !errors.As(err, &sick) {
		return banger.Errorf(banger.CodeDisk, "keeping an object of the guest: %w", banger.Cause(err))
	}
	return err
}

// commits checks the guest's commits and brings them into the quarantine.
func (c *Capture) commits(ctx context.Context) error {
	if c.Record.Plain || !c.loose.any {
		c.Heads = []Branch{}
		if c.Record.Branch != "" && c.Record.Head != "" {
			c.Heads = append(c.Heads, Branch{c.Record.Branch, c.Record.Head})
		}
		return nil
	}
	if err := c.readRefs(ctx); err != nil {
		return err
	}
	tips := map[string]bool{}
	for _, b := range c.Heads {
		tips[b.Commit] = true
	}
	if c.Head != "" {
		tips[c.Head] = true
	}
	for _, known := range c.Record.commits() {
		delete(tips, known)
	}
	if len(tips) == 0 {
		return nil
	}
	var wanted strings.Builder
	for tip := range tips {
		fmt.Fprintln(&wanted, tip)
	}
	for _, known := range c.Record.commits() {
		fmt.Fprintln(&wanted, "^"+known)
	}
	return c.quarantine(ctx, wanted.String())
}

// strictly are the arguments of a git that takes objects: it names each by its content, and refuses those that could
// harm a git or a file system (git-fsck(1)).
var strictly = []string{"index-pack", "--stdin", "--fix-thin", "--strict", "--fsck-objects",
	fmt.Sprint("--max-input-size=", int64(maxPack))}

// quarantine checks the objects of some commits and brings them into the quarantine.
func (c *Capture) quarantine(ctx context.Context, wanted string) error {
	l := c.loose.Git
	for _, pack := range c.loose.packs {
		if err := l.Run(ctx, nil, io.Discard, "index-pack", filepath.Join(c.loose.Dir, pack)); err != nil {
			return broken(ctx, err)
		}
	}
	counted, err := l.Filter(ctx, wanted, "rev-list", "--objects", "--count", "--stdin")
	if err != nil {
		return broken(ctx, err)
	}
	var n int
	if fmt.Sscan(counted, &n); n > maxObjects {
		return banger.Errorf(banger.CodeGuest, "the guest's commits have %d objects, and at most %d are taken", n, maxObjects)
	}
	from := []string{"pack-objects", "--revs", "--stdout", "--quiet", "--thin"}
	if err := git.Pipe(ctx, l, from, strings.NewReader(wanted), c.quar.Git, strictly, io.Discard); err != nil {
		return broken(ctx, err)
	}
	if _, err := c.quar.Git.Filter(ctx, wanted, "rev-list", "--objects", "--quiet", "--stdin"); err != nil {
		return broken(ctx, err)
	}
	return nil
}

// broken is the error for a repository of the guest that git refuses.
func broken(ctx context.Context, err error) error {
	var failed *git.Failure
	if ctx.Err() != nil || !errors.As(err, &failed) {
		return err
	}
	return banger.Errorf(banger.CodeGuest,
		"the guest's repository is damaged or hostile, so its commits were not taken: %s", failed.Said).
		WithHint("the working tree alone can be taken: banger workspace export VM")
}

// readRefs reads the guest's branches and its HEAD.
func (c *Capture) readRefs(ctx context.Context) error {
	refs := map[string]string{}
	if c.loose.packed == "" {
		if c.Record.Branch != "" && c.Record.Head != "" {
			refs["refs/heads/"+c.Record.Branch] = c.Record.Head
		}
	} else {
		for line := range strings.SplitSeq(c.loose.packed, "\n") {
			if oid, name, ok := strings.Cut(line, " "); ok && len(refs) < maxRefs {
				refs[name] = oid
			}
		}
	}
	for name, oid := range c.loose.refs {
		refs[name] = oid
	}
	head := refs["HEAD"]
	for name, oid := range refs {
		branch, ok := strings.CutPrefix(name, "refs/heads/")
		if !ok || !headName.MatchString(name) || !objectName.MatchString(oid) || !c.validRef(ctx, name) {
			continue
		}
		c.Heads = append(c.Heads, Branch{branch, oid})
	}
	slices.SortFunc(c.Heads, func(a, b Branch) int { return strings.Compare(a.Name, b.Name) })
	switch ref, symbolic := strings.CutPrefix(head, "ref: refs/heads/"); {
	case symbolic:
		c.Branch, c.Head = "", ""
		for _, b := range c.Heads {
			if b.Name == ref {
				c.Branch, c.Head = b.Name, b.Commit
			}
		}
	case objectName.MatchString(head):
		c.Branch, c.Head = "", head
	default: // it did not change
		for _, b := range c.Heads {
			if b.Name == c.Branch {
				c.Head = b.Commit
			}
		}
	}
	return nil
}

func (c *Capture) validRef(ctx context.Context, name string) bool {
	return c.quar.Git.Run(ctx, nil, nil, "check-ref-format", name) == nil
}

// own reports whether the guest's HEAD is a commit of its own.
func (c *Capture) own() bool { return c.Head != "" && !slices.Contains(c.Record.commits(), c.Head) }

// Commits returns how many commits the guest has made since the baseline, on the branch of its HEAD.
func (c *Capture) Commits(ctx context.Context) (n int, err error) {
	if !c.own() {
		return 0, nil
	}
	args := []string{"rev-list", "--count", c.Head}
	for _, known := range c.Record.commits() {
		args = append(args, "^"+known)
	}
	out, err := c.quar.Git.Output(ctx, args...)
	fmt.Sscan(out, &n)
	return n, err
}
