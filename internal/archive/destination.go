package archive

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
)

// maxSymlinks is how many symlinks the kernel follows on one path (path_resolution(7)).
const maxSymlinks = 40

// destination finds by docker's rules where a file or tree called name is put when the user says dst. It returns
// the directory, which the caller closes, and the name there; "." means the directory itself. Symlinks in dst are
// the user's, and are followed.
func destination(dst string, isDir bool, name string) (dir int, base string, err error) {
	slash := strings.HasSuffix(dst, "/") || strings.HasSuffix(dst, "/.")
	for range maxSymlinks {
		fd, err := unix.Open(dst, unix.O_PATH|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			var st unix.Stat_t
			err = unix.Fstat(fd, &st)
			if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
				return fd, name, nil
			}
			unix.Close(fd)
			if err != nil {
				return -1, "", failure("looking at", dst, err)
			}
			if err := overFile(dst, st.Mode, isDir, slash); err != nil {
				return -1, "", err
			}
		case !errors.Is(err, unix.ENOENT):
			return -1, "", failure("cannot copy to", dst, err)
		case slash && !isDir:
			return -1, "", banger.Errorf(banger.CodeNotFound, "there is no directory %q", dst).
				WithHint("leave the slash away to make a file of that name")
		}
		parent, last := path.Split(strings.TrimRight(strings.TrimSuffix(dst, "/."), "/"))
		if parent == "" {
			parent = "."
		}
		dir, err := unix.Open(parent, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) || last == "" || last == ".." {
			return -1, "", banger.Errorf(banger.CodeNotFound, "there is no directory %q to copy to", parent).
				WithHint("make it first")
		}
		if err != nil {
			return -1, "", failure("cannot copy to", dst, err)
		}
		target, err := readlink(dir, last)
		if err != nil { // not a symlink: this is the place
			return dir, last, nil
		}
		unix.Close(dir)
		if dst = target; !path.IsAbs(target) {
			dst = parent + "/" + target
		}
	}
	return -1, "", banger.Errorf(banger.CodeInvalid, "%q leads through too many symlinks", dst)
}

// overFile returns an error if a file may not replace what is at dst.
func overFile(dst string, mode uint32, isDir, slash bool) error {
	switch {
	case isDir:
		return banger.Errorf(banger.CodeInvalid, "a directory cannot take the place of %q, which is not a directory", dst)
	case slash:
		return banger.Errorf(banger.CodeInvalid, "%q is not a directory", dst)
	case mode&unix.S_IFMT != unix.S_IFREG:
		return banger.Errorf(banger.CodeInvalid, "%q is neither a file nor a directory, and is not replaced", dst)
	}
	return nil
}

// readlink returns the target of a symlink in dir.
func readlink(dir int, name string) (string, error) {
	buf := make([]byte, maxName+1)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	if n > maxName {
		return "", unix.ENAMETOOLONG
	}
	return string(buf[:n]), nil
}
