package workspace

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/git"
	"banger/internal/tree"
)

// Exported is a branch that was made of a workspace.
type Exported struct {
	Branch    string   `json:"branch"`
	Commit    string   `json:"commit"`
	Commits   int      `json:"commits"`           // of the guest, since the baseline
	Remaining bool     `json:"remaining"`         // one more commit has what the guest had not committed
	Modules   []string `json:"modules,omitempty"` // submodules with changes, which no branch of this repository can have
}

// repository opens the user's repository of a workspace.
func (r *Record) repository(ctx context.Context) (*git.Repository, error) {
	if r.Plain {
		return nil, banger.Errorf(banger.CodeInvalid, "workspace %s is of a directory without a repository", r.Name).
			WithHint("bring its changes home by: banger workspace pull")
	}
	repo, err := git.Open(ctx, r.Source)
	if errors.Is(err, git.ErrNone) {
		return nil, banger.Errorf(banger.CodeNotFound, "the repository at %s is gone", r.Source)
	}
	return repo, err
}

// Final makes a commit of the guest's working tree on top of its own commits. Without uncommitted changes it is the
// guest's own last one.
func (c *Capture) Final(ctx context.Context, author []string) (commit string, e Exported, err error) {
	if e.Commits, err = c.Commits(ctx); err != nil {
		return "", e, err
	}
	root, modules, err := c.committable(ctx)
	if err != nil {
		return "", e, err
	}
	e.Modules = modules
	args := []string{"commit-tree", root, "-m", "Uncommitted changes of workspace " + c.Record.Name}
	if c.Head != "" {
		at, err := c.quar.Git.Output(ctx, "rev-parse", "--verify", c.Head+"^{tree}")
		if err != nil {
			return "", e, err
		}
		if at == root {
			return c.Head, e, nil
		}
		args = append(args, "-p", c.Head)
	}
	e.Remaining = true
	commit, err = c.quar.Git.With(author...).Output(ctx, args...)
	return commit, e, err
}

// committable returns the tree of the guest's working tree in the form that git keeps: with the entries of
// submodules, what a sparse checkout leaves out, and the content that filters and line ends have in a repository.
func (c *Capture) committable(ctx context.Context) (root string, modules []string, err error) {
	q := c.quar
	now, err := q.List(ctx, c.Tree)
	if err != nil {
		return "", nil, err
	}
	before, err := q.List(ctx, c.Record.Lower)
	if err != nil {
		return "", nil, err
	}
	head := tree.Listing{}
	if c.Head != "" {
		if head, err = q.List(ctx, c.Head); err != nil {
			return "", nil, err
		}
	}
	for module, commit := range c.Record.Modules {
		if within(c.Record.Modules, module) {
			continue // it belongs to the repository of another submodule
		}
		touched := false
		for p, e := range now {
			if strings.HasPrefix(p, module+"/") {
				touched = touched || before[p] != e
				delete(now, p)
			}
		}
		if touched {
			modules = append(modules, module)
		}
		if now[module] = (tree.Entry{Mode: tree.ModeModule, OID: commit}); head[module].Mode == tree.ModeModule {
			now[module] = head[module]
		}
	}
	for _, path := range c.Record.Absent {
		if e, ok := head[path]; ok {
			if _, ok := now[path]; !ok {
				now[path] = e
			}
		}
	}
	for _, path := range c.Record.Converted {
		e, ok := now[path]
		kept, known := head[path]
		switch {
		case !ok:
		case e == before[path] && known:
			now[path] = kept
		default:
			if now[path], err = c.convert(ctx, e, kept); err != nil {
				return "", nil, err
			}
		}
	}
	root, err = q.Write(ctx, now)
	return root, modules, err
}

// within reports whether a submodule is in another one.
func within(modules map[string]string, module string) bool {
	for dir := path.Dir(module); dir != "."; dir = path.Dir(dir) {
		if _, ok := modules[dir]; ok {
			return true
		}
	}
	return false
}

// lfsPrefix begins what Git LFS keeps instead of a file (git-lfs, docs/spec.md).
const lfsPrefix = "version https://git-lfs.github.com/spec/v1\n"

// convert returns the entry of a changed file that git keeps in another form: with other line ends, or by Git
// LFS.
func (c *Capture) convert(ctx context.Context, now, kept tree.Entry) (tree.Entry, error) {
	var old []byte
	if kept.OID != "" {
		var err error
		if old, err = c.quar.Git.Bytes(ctx, "", "cat-file", "blob", kept.OID); err != nil {
			return now, err
		}
	}
	if bytes.HasPrefix(old, []byte(lfsPrefix)) {
		return c.pointer(ctx, now)
	}
	content, err := c.quar.Git.Bytes(ctx, "", "cat-file", "blob", now.OID)
	if err != nil || bytes.Contains(old, []byte("\r\n")) || bytes.IndexByte(content, 0) >= 0 {
		return now, err
	}
	oid, err := c.quar.Blob(ctx, bytes.NewReader(bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))))
	return tree.Entry{Mode: now.Mode, OID: oid}, err
}

// pointer keeps a file as Git LFS does: a pointer in the tree. Host puts the content into the user's repository.
func (c *Capture) pointer(ctx context.Context, now tree.Entry) (tree.Entry, error) {
	sum, size := sha256.New(), int64(0)
	file, err := os.CreateTemp(c.quar.Dir, "lfs-")
	if err != nil {
		return now, banger.Errorf(banger.CodeDisk, "keeping a file of Git LFS: %w", banger.Cause(err))
	}
	defer file.Close()
	if err := c.quar.Contents(ctx, now.OID+"\n", func(_ int, n int64, r io.Reader) error {
		size = n
		_, err := io.Copy(io.MultiWriter(sum, file), r)
		return err
	}); err != nil {
		return now, err
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	if err := os.Rename(file.Name(), filepath.Join(c.quar.Dir, "lfs-"+digest)); err != nil {
		return now, banger.Errorf(banger.CodeDisk, "keeping a file of Git LFS: %w", banger.Cause(err))
	}
	c.lfs = append(c.lfs, digest)
	oid, err := c.quar.Blob(ctx, strings.NewReader(fmt.Sprintf("%soid sha256:%s\nsize %d\n", lfsPrefix, digest, size)))
	return tree.Entry{Mode: now.Mode, OID: oid}, err
}

// Export makes a branch of the user's repository of what the guest has made: its commits, and one more with what it
// had not committed. It changes no working tree, no index, no HEAD and no configuration. An existing branch is moved
// with force alone, and never one that is checked out.
func (c *Capture) Export(ctx context.Context, branch string, force bool) (e Exported, err error) {
	r, err := c.Record.repository(ctx)
	if err != nil {
		return e, err
	}
	ref := "refs/heads/" + branch
	if strings.ContainsRune(branch, 0) || r.Run(ctx, nil, nil, "check-ref-format", ref) != nil ||
		r.Run(ctx, nil, nil, "check-ref-format", "--branch", branch) != nil {
		return e, banger.Errorf(banger.CodeInvalid, "%q is no name of a branch", branch)
	}
	old, err := freeBranch(ctx, r, branch, force)
	if err != nil {
		return e, err
	}
	commit, e, err := c.Final(ctx, authorOf(ctx, r))
	if err != nil {
		return e, err
	}
	if commit == "" {
		return e, banger.Errorf(banger.CodeConflict, "workspace %s has nothing to make a branch of", c.Record.Name)
	}
	e.Branch, e.Commit = branch, commit
	if err := c.Send(ctx, r.Git, commit); err != nil {
		return e, err
	}
	if err := c.sendLFS(r); err != nil {
		return e, err
	}
	message := "banger: workspace " + c.Record.Name
	args := []string{"update-ref", "--create-reflog", "-m", message, ref, commit, old}
	if err := r.Set(durable).Run(ctx, nil, nil, args...); err != nil {
		return e, banger.Errorf(banger.CodeConflict, "the branch %s was not made: %w", branch, err)
	}
	return e, nil
}

// freeBranch returns what a branch that may be made or moved is now, in git's words.
func freeBranch(ctx context.Context, r *git.Repository, branch string, force bool) (old string, err error) {
	old, err = r.Output(ctx, "rev-parse", "--verify", "--quiet", "refs/heads/"+branch)
	var failed *git.Failure
	if errors.As(err, &failed) {
		return "", nil // update-ref takes it for: there must be no such reference
	}
	if err != nil {
		return "", err
	}
	if !force {
		return "", banger.Errorf(banger.CodeConflict, "the branch %s exists", branch).
			WithHint("choose another name, or move it: --force")
	}
	trees, err := r.Output(ctx, "worktree", "list", "--porcelain")
	if err != nil {
		return "", err
	}
	for line := range strings.SplitSeq(trees, "\n") {
		if line == "branch refs/heads/"+branch {
			return "", banger.Errorf(banger.CodeConflict, "the branch %s is checked out, so it is not moved", branch).
				WithHint("choose another name")
		}
	}
	return old, nil
}

// authorOf returns who commits what a guest has not committed: the user, as git knows them.
func authorOf(ctx context.Context, r *git.Repository) (env []string) {
	for name, setting := range map[string]string{"NAME": "user.name", "EMAIL": "user.email"} {
		if value := r.Setting(ctx, setting); value != "" {
			env = append(env, "GIT_AUTHOR_"+name+"="+value, "GIT_COMMITTER_"+name+"="+value)
		}
	}
	return env
}

// durable makes git write to the disk what it says it has stored, as it does for the user.
const durable = "core.fsync=default,reference"

// Send brings commits of the quarantine, with what they need, into a repository, whose git checks all of it once
// more.
func (c *Capture) Send(ctx context.Context, to git.Git, commits ...string) error {
	to = to.Set(durable)
	wanted := strings.Join(commits, "\n") + "\n"
	if c.Record.Head != "" {
		err := to.Run(ctx, nil, nil, "cat-file", "-e", c.Record.Head+"^{commit}")
		var failed *git.Failure
		if errors.As(err, &failed) {
			return banger.Errorf(banger.CodeNotFound, "the repository does not have commit %s, at which workspace %s began",
				short(c.Record.Head), c.Record.Name).WithHint("use the repository at %s", c.Record.Source)
		}
		if err != nil {
			return err
		}
	}
	for _, known := range c.Record.commits() {
		if to.Run(ctx, nil, nil, "cat-file", "-e", known+"^{commit}") == nil {
			wanted += "^" + known + "\n"
		}
	}
	from := []string{"pack-objects", "--revs", "--stdout", "--quiet", "--thin"}
	if err := git.Pipe(ctx, c.quar.Git, from, strings.NewReader(wanted), to, strictly, io.Discard); err != nil {
		return broken(ctx, err)
	}
	args := append([]string{"rev-list", "--objects", "--quiet"}, commits...)
	if err := to.Run(ctx, nil, io.Discard, append(args, "--not", "--all")...); err != nil {
		return broken(ctx, err)
	}
	return nil
}

// sendLFS puts the contents of changed files of Git LFS where it keeps them.
func (c *Capture) sendLFS(r *git.Repository) error {
	for _, digest := range c.lfs {
		dir := filepath.Join(r.Common, "lfs/objects", digest[:2], digest[2:4])
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = tree.CopyFile(filepath.Join(c.quar.Dir, "lfs-"+digest), filepath.Join(dir, digest))
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return banger.Errorf(banger.CodeDisk, "keeping a file of Git LFS: %w", banger.Cause(err))
		}
	}
	return nil
}
