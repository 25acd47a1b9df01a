package agent

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// root is the directory that holds the image while its paths are resolved; a
// test has another.
type rootDir string

var imageRoot = rootDir(newRoot)

// open opens a path of the image, following its symlinks inside the new root
// only (openat2(2), RESOLVE_IN_ROOT) and never into /proc's magic links.
func (r rootDir) open(name string, flags int) (int, error) {
	dir, err := unix.Open(string(r), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	return unix.Openat2(dir, name, &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
}

// mkdirInRoot opens a directory of the image, making it and its parents where
// they are missing.
func mkdirInRoot(name string, mode uint32) (int, error) { return imageRoot.mkdir(name, mode) }

func (r rootDir) mkdir(name string, mode uint32) (int, error) {
	fd, err := r.open(name, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	parent, base := path.Split(strings.TrimSuffix(name, "/"))
	dir, err := r.mkdir(path.Clean("/"+parent), 0o755)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	if err := unix.Mkdirat(dir, base, mode); err != nil {
		return -1, fmt.Errorf("making /%s: %w", name, err)
	}
	// The umask may have taken bits; base is ours now, so no link is followed.
	fd, err = unix.Openat(dir, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, unix.Fchmodat(dir, base, mode, 0)
}

// writeFile replaces a file of the image by one with the given content. A symlink
// at its place is replaced, not followed.
func (r rootDir) writeFile(name, content string) error {
	parent, base := path.Split(name)
	dir, err := r.mkdir(path.Clean("/"+parent), 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	tmp := ".banger-" + base
	unix.Unlinkat(dir, tmp, 0)
	fd, err := unix.Openat(dir, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(content))
	unix.Close(fd)
	if err == nil {
		err = unix.Renameat(dir, tmp, dir, base)
	}
	if err != nil {
		unix.Unlinkat(dir, tmp, 0)
	}
	return err
}

// procPath names an open descriptor for calls that take a path.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
