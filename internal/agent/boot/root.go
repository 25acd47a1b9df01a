package boot

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// rootDir is a directory that holds an image. The image is hostile: its paths are
// resolved within the directory only.
type rootDir string

// upperDir returns the path of the overlay's upper directory on the disk behind a
// descriptor.
func upperDir(disk int) string { return procPath(disk) + "/upper" }

// open opens a path of the image, following its symlinks inside the new root
// only (openat2(2), RESOLVE_IN_ROOT) and never into /proc's magic links.
func (r rootDir) open(name string, flags int) (int, error) {
	dir, err := unix.Open(string(r), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	return unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// mkdirInRoot is mkdir for the root that is being assembled.
func mkdirInRoot(name string, mode uint32) (int, error) { return rootDir(newRoot).mkdir(name, mode) }

// mkdir opens a directory of the image, and makes it and its parents if they are
// missing. It returns a descriptor.
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
	err = unix.Mkdirat(dir, base, mode)
	if errors.Is(err, unix.EEXIST) { // it is a symlink to nowhere
		return r.mkdirBehind(dir, name, mode)
	}
	if err != nil {
		return -1, fmt.Errorf("making /%s: %w", name, err)
	}
	// The umask may have cleared bits of the mode. O_NOFOLLOW refuses a link at its place.
	fd, err = unix.Openat(dir, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, unix.Fchmodat(dir, base, mode, 0)
}

// mkdirBehind makes the directory to which a symlink leads that leads nowhere. parent is the directory of the symlink.
func (r rootDir) mkdirBehind(parent int, name string, mode uint32) (int, error) {
	link := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(parent, path.Base(name), link)
	if err != nil {
		return -1, fmt.Errorf("making /%s: %w", name, err)
	}
	target := path.Join("/", string(link[:n]))
	if !path.IsAbs(string(link[:n])) {
		target = path.Join("/", path.Dir(name), string(link[:n]))
	}
	if target == path.Join("/", name) || strings.HasPrefix(target, path.Join("/", name)+"/") {
		return -1, fmt.Errorf("making /%s: %w", name, unix.ELOOP)
	}
	return r.mkdir(strings.TrimPrefix(target, "/"), mode)
}

// make makes a directory if it is missing, with its parents, for root and with mode 0755.
func (r rootDir) make(dir string) error {
	fd, err := r.mkdir(strings.TrimPrefix(path.Join("/", dir), "/"), 0o755)
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

// writeFile replaces a file of the image by one with the given content. It replaces a
// symlink at that path, and does not follow it.
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

// procPath returns a path of an open descriptor, for calls that take a path.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
