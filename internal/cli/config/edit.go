package config

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/blob"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/config"
	"banger/internal/toml"
	"banger/internal/untrusted"
)

func newEdit(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:   "edit",
		Short: "Edit your config.toml with $VISUAL, $EDITOR or vi",
		Long: `Edit a copy of your config.toml. It replaces the file only when it is right. Without a file, the copy begins
as one with all keys as comments.`,
		Args: command.Usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error { return runEdit(a) },
	}
}

func runEdit(a *command.App) error {
	if a.Paths.Config == "" {
		return banger.Errorf(banger.CodeInvalid, "this user has no home directory").WithHint("set HOME or XDG_CONFIG_HOME")
	}
	old, err := config.ReadUser(a.Paths.Config)
	if err != nil {
		return err
	}
	text := old
	if old == nil {
		text = []byte(template)
	}
	copied, err := copyOf(text)
	if err != nil {
		return err
	}
	changed, err := edit(a, copied, text)
	if err != nil {
		return kept(err, copied, text)
	}
	if old != nil && bytes.Equal(changed, old) {
		os.Remove(copied)
		a.Say(a.Paths.Config + " has not changed")
		return nil
	}
	if err := replace(a.Paths.Config, old, changed); err != nil {
		return kept(err, copied, text)
	}
	os.Remove(copied)
	a.Say(a.Paths.Config)
	return nil
}

// copyOf makes a temporary file with a text, which only this user can read.
func copyOf(text []byte) (string, error) {
	f, err := os.CreateTemp("", "banger-*.toml")
	if err == nil {
		_, err = f.Write(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return "", banger.Errorf(banger.CodeUnavailable, "cannot make a copy to edit: %w", banger.Cause(err)).
			WithHint("see if there is room in %s", os.TempDir())
	}
	return f.Name(), nil
}

// edit runs the user's editor on a file until the text in it is right, or the user gives up.
func edit(a *command.App, path string, before []byte) ([]byte, error) {
	editor := cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"), "vi")
	for {
		c := exec.Command("sh", "-c", editor+` "$@"`, editor, path) // the variable may have arguments, as git takes it
		c.Stdin, c.Stdout, c.Stderr = a.Stdin, a.Stdout, a.Stderr
		if err := c.Run(); err != nil {
			return nil, banger.Errorf(banger.CodeUnavailable, "the editor %.200q has failed", editor).
				WithHint("set VISUAL or EDITOR")
		}
		raw, err := untrusted.ReadFile(path, toml.Max)
		if err != nil {
			return nil, banger.Errorf(banger.CodeInvalid, "cannot read what was edited: %w", banger.Cause(err)).
				WithHint("save a file of at most %s", banger.FormatSize(toml.Max))
		}
		if bytes.Equal(raw, before) {
			return raw, nil
		}
		if _, err = config.ParseUser(a.Paths.Config, raw); err == nil {
			return raw, nil
		}
		if !a.Interactive() {
			return nil, err
		}
		render.Error(a.Stderr, err)
		if !a.Ask("Edit it again?") {
			return nil, banger.Errorf(banger.CodeInvalid, "the text is still wrong, so nothing was changed")
		}
	}
}

// kept returns an error with the place of what the user has written. An unchanged copy is removed.
func kept(err error, path string, before []byte) error {
	if raw, rerr := os.ReadFile(path); rerr == nil && !bytes.Equal(raw, before) {
		return banger.Errorf(banger.CodeOf(err), "%w", err).WithHint("what you have written is in %s", path)
	}
	os.Remove(path)
	return err
}

// replace replaces the file at path, or the one to which a link there leads, durably.
func replace(path string, old, text []byte) error {
	now, err := config.ReadUser(path)
	if err != nil {
		return err
	}
	if !bytes.Equal(now, old) {
		return banger.Errorf(banger.CodeConflict, "%s has changed while you edited it", path).WithHint("edit it again")
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	dir := filepath.Dir(path)
	if err = os.MkdirAll(dir, 0o700); err == nil {
		err = blob.WriteFile(path, 0o600, func(w io.Writer) error { _, err := w.Write(text); return err })
	}
	if err == nil {
		err = blob.Sync(filepath.Dir(dir))
	}
	if err != nil {
		return banger.Errorf(banger.CodeUnavailable, "cannot write %s: %w", path, banger.Cause(err)).
			WithHint("see if you may write there, and if there is room")
	}
	return nil
}

// template is the file with which a user begins.
const template = `# What VMs get where no flag says it. See: docs/configuration.md, and banger config show --origin.

# image = "debian-bookworm-dev"   # what banger work runs
# cpus = 2
# memory = "2g"
# disk = "20g"
# network = "user"
# warm = "auto"
# idle = "15m"

# [policy]                        # what VMs may reach
# default = "deny"
# allow = ["*.debian.org tcp:80,443"]
# deny = ["10.0.0.0/8"]

# [budget]                        # work and agent start no VM beyond it
# running = 4
# memory = "8g"

# [git]                           # who makes commits in workspaces
# name = "A. User"
# email = "user@example.com"

# [[file_sync]]                   # files that VMs get
# host = "~/.gitconfig"
# guest = "~/.gitconfig"
# mode = "0600"
# owner = "root"

# [agents.mine]                   # an agent of your own
# command = ["mine", "{prompt}"]
`
