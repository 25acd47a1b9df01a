// Package config reads what a user wants for all VMs (config.toml) and what a repository wants for its own
// (banger.toml), and joins both. Every value is checked where it is read: an error names the file, the line and the
// key. Reviews remembers which files of repositories a user has allowed.
//
// The package must not know commands, VMs that exist, nor the daemon.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"banger"
	"banger/internal/nearest"
	"banger/internal/notation"
	"banger/internal/recipe"
	"banger/internal/text"
	"banger/internal/toml"
)

// maxList bounds how many services, tasks, tools and files a configuration may have.
const maxList = 100

// Word is a text or a number of a file, as it is written there.
type Word string

// UnmarshalText takes what is written.
func (w *Word) UnmarshalText(raw []byte) error { *w = Word(raw); return nil }

// Common is what both files may say about a VM. "" and nil mean that a file does not say it.
type Common struct {
	Image   string  `toml:"image"`
	CPUs    Word    `toml:"cpus"`
	Memory  Word    `toml:"memory"`
	Disk    Word    `toml:"disk"`
	Network string  `toml:"network"`
	Policy  *Policy `toml:"policy"`
}

// Policy is what a VM may reach, in the notation of --net-allow and --net-deny.
type Policy struct {
	Default string   `toml:"default"` // "" means deny
	Allow   []string `toml:"allow"`
	Deny    []string `toml:"deny"`
}

// Resolve returns the policy. What is denied comes first.
func (p Policy) Resolve() (out banger.Policy, err error) {
	out.Default = banger.Deny
	if p.Default != "" {
		out.Default = p.Default
	}
	for _, list := range []struct {
		action string
		rules  []string
	}{{banger.Deny, p.Deny}, {banger.Allow, p.Allow}} {
		for _, text := range list.rules {
			r, err := notation.ParseRule(list.action + " " + text)
			if err != nil {
				return out, banger.Errorf(banger.CodeInvalid, "%s: %w", list.action, err).
					WithHint("for example: *.debian.org tcp:80,443")
			}
			out.Rules = append(out.Rules, r)
		}
	}
	return out, out.Check()
}

// User is what a user wants for all VMs.
type User struct {
	Common
	Warm     string                   `toml:"warm"`
	Idle     string                   `toml:"idle"`
	Budget   Budget                   `toml:"budget"`
	Git      Identity                 `toml:"git"`
	FileSync []FileSync               `toml:"file_sync"`
	Agents   map[string]recipe.Recipe `toml:"agents"`

	file file
}

// Budget bounds the VMs that run at a time. 0 and "" mean no bound.
type Budget struct {
	Running int  `toml:"running"`
	Memory  Word `toml:"memory"`
}

// Bytes returns the bound of the memory, or 0.
func (b Budget) Bytes() int64 {
	n, _ := banger.ParseSize(string(b.Memory)) // which was checked
	return n
}

// Identity is who makes commits in workspaces. "" means the host's own.
type Identity struct {
	Name  string `toml:"name"`
	Email string `toml:"email"`
}

// FileSync is a file of the host that VMs get.
type FileSync struct {
	Host  string `toml:"host"`  // absolute, or below ~/
	Guest string `toml:"guest"` // absolute, or below ~/
	Mode  string `toml:"mode"`  // octal; "" means the file's own
	Owner string `toml:"owner"` // "" means the user of the session
}

// file is a file of TOML that was read.
type file struct {
	name  string // for a person
	lines toml.Lines
}

// bad returns the error for a key of a file.
func (f file) bad(err error, path ...string) error {
	return banger.Errorf(banger.CodeInvalid, "%s:%d: %s: %w", f.name, f.lines.At(path...),
		text.Limit(strings.Join(path, "."), 80), err)
}

// origin returns where a key is written.
func (f file) origin(path ...string) string { return fmt.Sprintf("%s:%d", f.name, f.lines.At(path...)) }

// decode reads a file into v.
func decode(name string, raw []byte, v any) (f file, err error) {
	f.name = name
	f.lines, err = toml.DecodeStrict(raw, v)
	var unknown *toml.Unknown
	if errors.As(err, &unknown) && len(unknown.Path) > 0 {
		e := banger.Errorf(banger.CodeInvalid, "%s:%d: the key %.80q is unknown", name, unknown.Line,
			strings.Join(unknown.Path, "."))
		if near := nearest.Word(unknown.Path[len(unknown.Path)-1], unknown.Known); near != "" {
			return f, e.WithHint("did you mean %q?", near)
		}
		return f, e.WithHint("see docs/configuration.md")
	}
	if err != nil {
		return f, banger.Errorf(banger.CodeInvalid, "cannot read %s: %w", name, err).WithHint("correct that line")
	}
	return f, nil
}

// LoadUser reads the user's file. Without one, or without a path, the user wants nothing. The file must belong to this
// user, and nobody else may be able to change it.
func LoadUser(path string) (User, error) {
	raw, err := ReadUser(path)
	if err != nil || raw == nil {
		return User{}, err
	}
	return ParseUser(path, raw)
}

// ReadUser returns the text of the user's file, or nil without a file.
func ReadUser(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a link may lead to another directory
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	cannot := func(format string, args ...any) *banger.Error {
		return banger.Errorf(banger.CodeInvalid, "cannot read %s: %w", short(path), fmt.Errorf(format, args...))
	}
	if err != nil {
		return nil, cannot("%w", banger.Cause(err)).WithHint("make it a file that you can read, or remove it")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, cannot("%w", banger.Cause(err)).WithHint("make it a file that you can read, or remove it")
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, cannot("it is not a regular file").WithHint("move it away")
	case !ok || int(st.Uid) != os.Geteuid() && st.Uid != 0:
		return nil, cannot("it belongs to another user").WithHint("run: chown %d %s", os.Geteuid(), short(path))
	case info.Mode().Perm()&0o022 != 0:
		return nil, cannot("other users can change it").WithHint("run: chmod go-w %s", short(path))
	}
	raw, err := io.ReadAll(io.LimitReader(f, toml.Max+1))
	if err != nil {
		return nil, cannot("%w", banger.Cause(err)).WithHint("make it a file that you can read, or remove it")
	}
	return slices.Grow(raw, 1), nil // not nil, also for an empty file
}

// ParseUser returns what the text of a user's file means. path is for errors.
func ParseUser(path string, raw []byte) (u User, err error) {
	if u.file, err = decode(short(path), raw, &u); err != nil {
		return User{}, err
	}
	for _, check := range []func() error{
		func() error { return u.file.common(u.Common) },
		func() error { return u.file.spec("warm", u.Warm, func(s *banger.Spec) { s.Warm = u.Warm }) },
		func() error {
			return u.file.word("idle", u.Idle, func() error { _, err := notation.Idle(u.Idle); return err })
		},
		u.checkBudget, u.checkGit, u.checkFiles, u.checkAgents,
	} {
		if err := check(); err != nil {
			return User{}, err
		}
	}
	return u, nil
}

// short returns a path with ~ for the user's home.
func short(path string) string {
	if home := os.Getenv("HOME"); filepath.IsAbs(home) {
		if rest, ok := strings.CutPrefix(path, filepath.Clean(home)+"/"); ok {
			return "~/" + rest
		}
	}
	return path
}

// sorted returns the keys of a table in order.
func sorted[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
