package git

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"banger"
)

// Repository is a user's repository with a working tree.
type Repository struct {
	Git           // runs in Top
	Top    string // the working tree
	Dir    string // the directory of this working tree's index and HEAD
	Common string // the directory of the objects
	Format string // sha1 or sha256
	Head   string // the commit, or "" before the first one
	Branch string // such as main; "" if HEAD names a commit
	CRLF   string // core.autocrlf, or ""
}

// ErrNone means that a directory is in no repository.
var ErrNone = errors.New("not in a git repository")

// Open returns the repository around a directory. It returns ErrNone for a directory in no repository.
func Open(ctx context.Context, path string) (*Repository, error) {
	r := &Repository{Git: Git{Dir: path}}
	out, err := r.Output(ctx, "rev-parse", "--is-bare-repository", "--show-toplevel", "--absolute-git-dir",
		"--git-common-dir", "--show-object-format")
	var failed *Failure
	if errors.As(err, &failed) {
		return nil, explainOpen(path, failed)
	}
	if err != nil {
		return nil, err
	}
	lines := strings.Split(out, "\n")
	if len(lines) != 5 {
		return nil, banger.Errorf(banger.CodeInvalid, "the path of the repository at %s has a line end", path).
			WithHint("move it to another path")
	}
	r.Top, r.Dir, r.Common, r.Format = lines[1], lines[2], lines[3], lines[4]
	if !filepath.IsAbs(r.Common) {
		r.Common = filepath.Join(path, r.Common)
	}
	r.Git.Dir = r.Top
	if err := r.withoutFilters(ctx); err != nil {
		return nil, err
	}
	return r, r.readHead(ctx)
}

// explainOpen returns the error for a path that git cannot open.
func explainOpen(path string, failed *Failure) error {
	switch {
	case strings.Contains(failed.Said, "not a git repository"):
		return ErrNone
	case strings.Contains(failed.Said, "work tree"):
		return banger.Errorf(banger.CodeInvalid, "the repository at %s has no working tree", path).
			WithHint("name a directory with a checkout")
	case strings.Contains(failed.Said, "dubious ownership"):
		return banger.Errorf(banger.CodeDenied, "the repository at %s belongs to another user", path).
			WithHint("use banger as that user")
	}
	return banger.Errorf(banger.CodeInvalid, "git does not open the repository at %s: %s", path, failed.Said)
}

// withoutFilters makes r switch off the filters of the repository's configuration, which are programs.
func (r *Repository) withoutFilters(ctx context.Context) error {
	names, err := r.Fields(ctx, "", "config", "-z", "--name-only", "--get-regexp",
		`^filter\..*\.(clean|smudge|process|required)$`)
	var failed *Failure
	if err != nil && !(errors.As(err, &failed) && failed.Code == 1) { // 1 means: no filters
		return err
	}
	for _, name := range names {
		if strings.ContainsAny(name, "=\n") {
			return banger.Errorf(banger.CodeInvalid,
				"the repository at %s has a filter with the name %q, which cannot be switched off", r.Top, name).
				WithHint("rename the filter")
		}
		value := ""
		if strings.HasSuffix(name, ".required") {
			value = "false"
		}
		r.Config = append(r.Config, name+"="+value)
	}
	return nil
}

// readHead reads what HEAD is, and how the repository keeps line ends.
func (r *Repository) readHead(ctx context.Context) (err error) {
	var failed *Failure
	if r.Head, err = r.Output(ctx, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"); err != nil {
		if !errors.As(err, &failed) {
			return err
		}
		r.Head = ""
	}
	if r.Branch, err = r.Output(ctx, "symbolic-ref", "--quiet", "--short", "HEAD"); err != nil {
		if !errors.As(err, &failed) {
			return err
		}
		r.Branch = ""
	}
	if r.CRLF = r.Setting(ctx, "core.autocrlf"); r.CRLF == "false" {
		r.CRLF = ""
	}
	if r.CRLF != "" {
		r.Git = r.Set("core.autocrlf=" + r.CRLF)
	}
	if eol := r.Setting(ctx, "core.eol"); eol != "" {
		r.Git = r.Set("core.eol=" + eol)
	}
	return nil
}

// Setting returns what the user's git uses for a setting: the value in the repository, or else the user's own or the
// system's. It is only read, and never makes git start a program. It returns "" for a setting without a value.
func (r *Repository) Setting(ctx context.Context, name string) string {
	value, err := r.Output(ctx, "config", "--get", name)
	if err == nil {
		return value
	}
	return OfUser(ctx, name)
}

// OfUser returns a setting of the user or of the system, or "". No repository is read, and git starts no program.
func OfUser(ctx context.Context, name string) string {
	cmd := exec.CommandContext(ctx, "git", "config", "--path", "--get", name)
	cmd.Dir, cmd.Env = "/", []string{"LC_ALL=C"}
	for _, v := range []string{"PATH", "HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL"} {
		if value, ok := os.LookupEnv(v); ok {
			cmd.Env = append(cmd.Env, v+"="+value)
		}
	}
	out, _ := cmd.Output() // without the setting it fails
	return strings.TrimSuffix(string(out), "\n")
}

// AsUser runs git as if the user had typed it in a directory: with the user's environment, configuration and hooks.
func AsUser(ctx context.Context, dir string, stdout, stderr io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, stdout, stderr
	return cmd.Run()
}
