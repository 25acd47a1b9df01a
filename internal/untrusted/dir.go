package untrusted

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Reclaim gives a flat directory and its files back to the caller, and keeps everybody else out. From an existing
// directory it removes everything except regular files with one name. If one of the files in keep is not such a file,
// it removes nothing and returns an error.
func Reclaim(dir string, keep ...string) error {
	d, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer d.Close()
	if err := take(d, unix.Geteuid(), unix.Getegid()); err != nil {
		return &fs.PathError{Op: "taking back", Path: dir, Err: err}
	}
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		var st unix.Stat_t
		if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1:
			if err := own(d, name, unix.Geteuid(), unix.Getegid()); err != nil {
				return err
			}
		case slices.Contains(keep, name):
			return fmt.Errorf("%s is not a file of its own, as the VMM may have made it: put the file back in its place", path)
		default:
			if err := RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// Give gives a flat directory and its files to a user. Before that, the directory must belong to the caller and be
// writable for nobody else.
func Give(dir string, uid, gid int) error {
	d, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := own(d, name, uid, gid); err != nil {
			return err
		}
	}
	if err := take(d, uid, gid); err != nil {
		return &fs.PathError{Op: "giving away", Path: dir, Err: err}
	}
	return nil
}

// take gives an open directory to one user alone.
func take(d *os.File, uid, gid int) error {
	if unix.Geteuid() == 0 {
		if err := d.Chown(uid, gid); err != nil {
			return err
		}
	}
	return d.Chmod(0o700)
}

func own(d *os.File, name string, uid, gid int) error {
	if unix.Geteuid() != 0 {
		return nil
	}
	if err := unix.Fchownat(int(d.Fd()), name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "chown", Path: filepath.Join(d.Name(), name), Err: err}
	}
	return nil
}

func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// RemoveAll removes a file, or a directory with all its content, as os.RemoveAll does. It needs only two descriptors
// and constant memory, however deeply directories are nested.
func RemoveAll(path string) error {
	err := unix.Unlink(path)
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	top, oerr := openDir(unix.AT_FDCWD, path)
	if errors.Is(oerr, unix.ENOENT) {
		return nil
	}
	if oerr != nil {
		return &fs.PathError{Op: "unlink", Path: path, Err: err}
	}
	defer top.Close()
	if err := take(top, unix.Geteuid(), unix.Getegid()); err != nil {
		return &fs.PathError{Op: "taking back", Path: path, Err: err}
	}
	moved := 0
	err = eachName(top, func(name string) error { return remove(top, name, &moved) })
	if err == nil {
		err = unix.Rmdir(path)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "removing", Path: path, Err: err}
	}
	return nil
}

// remove removes the entry called name of top. It moves non-empty directories inside that entry to top, where they
// are removed later.
func remove(top *os.File, name string, moved *int) error {
	for tries := 0; ; tries++ { // more than one if another process writes there
		done, err := unlink(top, name)
		if done || tries == maxTries || !isNotEmpty(err) {
			return err
		}
		sub, err := openDir(int(top.Fd()), name)
		if err != nil {
			return err
		}
		sub.Chmod(0o700) // the caller owns sub, but may lack the rights
		err = eachName(sub, func(inner string) error {
			done, err := unlink(sub, inner)
			for !done && isNotEmpty(err) {
				*moved++
				err = unix.Renameat(int(sub.Fd()), inner, int(top.Fd()), fmt.Sprintf("removed.%d", *moved))
				done = err == nil
			}
			return err
		})
		sub.Close()
		if err != nil {
			return err
		}
	}
}

// maxTries bounds how often a directory is emptied while another process makes files in it.
const maxTries = 100

// isNotEmpty reports whether err means that a directory is not empty, or that a name is taken.
func isNotEmpty(err error) bool {
	return errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTDIR)
}

// unlink removes a file or an empty directory. If isNotEmpty is true for the error, the directory is not empty.
func unlink(d *os.File, name string) (done bool, err error) {
	err = unix.Unlinkat(int(d.Fd()), name, 0)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
		err = unix.Unlinkat(int(d.Fd()), name, unix.AT_REMOVEDIR)
	}
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return err == nil, err
}

// eachName calls f for each name in a directory, also for names that f adds.
func eachName(d *os.File, f func(string) error) error {
	for {
		if _, err := d.Seek(0, io.SeekStart); err != nil {
			return err
		}
		names, err := d.Readdirnames(1000)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := f(name); err != nil {
				return err
			}
		}
	}
}
