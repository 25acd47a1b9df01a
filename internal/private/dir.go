// Package private makes and checks what only this user and root may change or hear: directories, locks in them, and unix
// sockets, whose other end it identifies. It must not know what banger keeps there.
package private

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"banger"
)

// maxLinks is how many symbolic links Linux follows in one path (path_resolution(7)).
const maxLinks = 40

// Make makes the directory at path, and its parents, as far as they are absent. Each directory that it makes gets mode,
// whatever the umask; and so does the last one when it exists and belongs to this user. Then it holds path to what Check demands.
// The path is absolute.
func Make(path string, mode fs.FileMode) error {
	if err := walk(path, func(dir string) error {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return os.Chmod(dir, mode) // the walk has checked its parent: nobody else can have put something here
	}, &mode); err != nil {
		return described(path, err)
	}
	return nil
}

// Check returns an error unless path, which is absolute, is a directory, not a symbolic link, of this user or root, and
// nobody else may change it or put something else in its place: neither in one of its parents, nor where a symbolic link
// on the way leads to. The error is a *banger.Error with CodeDenied, or wraps fs.ErrNotExist.
func Check(path string) error { return described(path, walk(path, nil, nil)) }

// described makes a *banger.Error of the errors of a walk to path, but leaves fs.ErrNotExist to the caller.
func described(path string, err error) error {
	var known *banger.Error
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.As(err, &known):
		return err
	}
	code := banger.CodeInvalid
	switch {
	case errors.Is(err, fs.ErrPermission):
		code = banger.CodeDenied
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		code = banger.CodeNoSpace
	}
	return banger.Errorf(code, "the directory %s cannot be used: %w", path, err)
}

// walk goes from / to path and checks each step. It calls make, unless it is nil, for each that is absent. It gives the last
// one mode, unless mode is nil.
func walk(path string, make func(dir string) error, mode *fs.FileMode) error {
	at, rest := "/", strings.Split(strings.Trim(filepath.Clean(path), "/"), "/")
	if err := checkStep(at, false); err != nil {
		return err
	}
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == "" {
			continue
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) && make != nil {
			if err = make(next); err == nil {
				info, err = os.Lstat(next)
			}
		}
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			if links++; links > maxLinks {
				return syscall.ELOOP
			}
			target, err := followed(next, info, len(rest) == 0)
			if err != nil {
				return err
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(strings.Split(target, "/"), rest...)
			continue
		}
		at = next
		if len(rest) == 0 && mode != nil && ownerOf(info) == os.Geteuid() && info.IsDir() && info.Mode().Perm() != *mode {
			if err := os.Chmod(at, *mode); err != nil {
				return err
			}
		}
		if err := checkStep(at, len(rest) == 0); err != nil {
			return err
		}
	}
	return nil
}

// followed returns where a symbolic link on the way leads to.
func followed(link string, info fs.FileInfo, last bool) (string, error) {
	if last {
		return "", banger.Errorf(banger.CodeDenied, "%s is a symbolic link", link).WithHint("name the directory that it leads to")
	}
	if err := trusted(link, info); err != nil {
		return "", err
	}
	return os.Readlink(link)
}

// checkStep checks one directory on the way, or the last one.
func checkStep(dir string, last bool) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return banger.Errorf(banger.CodeInvalid, "%s is not a directory", dir)
	}
	if err := trusted(dir, info); err != nil {
		return err
	}
	open := info.Mode().Perm() & 0o022
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Gid) == os.Getegid() && os.Getegid() == os.Geteuid() {
		open &^= 0o020 // a group of this user alone, as Debian makes it for each
	}
	if open == 0 || info.Mode()&fs.ModeSticky != 0 && !last { // in a sticky directory only the owner replaces a thing
		return nil
	}
	return banger.Errorf(banger.CodeDenied, "other users may replace what is in %s (mode %04o)", dir, info.Mode().Perm()).
		WithHint("run: chmod go-w %s", dir)
}

// trusted returns an error if a third user owns the thing at path.
func trusted(path string, info fs.FileInfo) error {
	if uid := ownerOf(info); uid != 0 && uid != os.Geteuid() {
		return banger.Errorf(banger.CodeDenied, "%s belongs to user id %d, who is neither this user nor root", path, uid).
			WithHint("choose other directories with BANGER_STATE_DIR and BANGER_RUN_DIR")
	}
	return nil
}

func ownerOf(info fs.FileInfo) int {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return -1
	}
	return int(st.Uid)
}

// CheckEntries returns an error if a third user owns something in dir, not deeper. Where the mode was wrong once, others
// could put things there.
func CheckEntries(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = trusted(filepath.Join(dir, e.Name()), info)
		}
		if err != nil {
			return described(dir, err)
		}
	}
	return described(dir, err)
}

// Restrict takes the rights that mask names from all that is in dir, which is this user's, at any depth, except in directories
// for which skip, which gets their paths, returns true. It follows no symbolic link. What is gone meanwhile is no error.
func Restrict(dir string, mask fs.FileMode, skip func(path string) bool) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if d.IsDir() && skip(path) {
			return fs.SkipDir
		}
		if path == dir || !d.IsDir() && !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&mask != 0 {
			err = os.Chmod(path, info.Mode().Perm()&^mask)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("correcting the mode of %s: %w", path, err)
		}
		return nil
	})
}
