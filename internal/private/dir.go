// Package private makes and checks directories, locks in them, and unix sockets that only this user and root may use.
// It identifies the other end of a socket. It must not know what banger keeps there.
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

// Make makes the directory at path and its absent parents. path must be absolute. Each directory that it makes gets
// mode, whatever the umask. The last one also gets mode if it exists and belongs to this user. Then Make checks path
// as Check does.
func Make(path string, mode fs.FileMode) error {
	if err := walk(path, func(dir string) error {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return os.Chmod(dir, mode) // the walk has checked its parent, so no other user can have put something here
	}, &mode); err != nil {
		return described(path, err)
	}
	return nil
}

// Check returns an error unless the absolute path is a directory of this user or root, is not a symbolic link, and
// cannot be changed or replaced by others. It also checks the parents, and the places to which symbolic links on the
// way lead. The error is a *banger.Error with CodeDenied, or wraps fs.ErrNotExist.
func Check(path string) error { return described(path, walk(path, nil, nil)) }

// described turns an error of a walk to path into a *banger.Error. It returns fs.ErrNotExist unchanged.
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

// walk goes from / to path and checks each step. It calls make, unless it is nil, for each absent directory. It gives
// the last one mode, unless mode is nil.
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
		return "", banger.Errorf(banger.CodeDenied, "%s is a symbolic link", link).
			WithHint("name the directory that it leads to")
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
		open &^= 0o020 // a group of this user alone, as Debian makes one for each user
	}
	// In a sticky directory only the owner can replace an entry.
	if open == 0 || info.Mode()&fs.ModeSticky != 0 && !last {
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

// CheckEntries returns an error if a third user owns an entry of dir. It does not look deeper. If the mode of dir was
// once wrong, others could have put entries there.
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

// Restrict takes the rights in mask from all entries of dir at any depth. They belong to this user. It skips
// directories for whose path skip returns true. It follows no symbolic link. It ignores entries that disappear
// meanwhile.
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
