package workspace

import (
	"errors"
	"path"

	"golang.org/x/sys/unix"

	"banger"
)

// removeFiles removes files of the mounted workspace by their paths in it. No symlink is followed, and no mount is
// crossed.
func (w *workspace) removeFiles(paths [][]byte) error {
	if len(paths) == 0 {
		return nil
	}
	top, err := unix.Open(w.Path, openDir, 0)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	var st unix.Stat_t
	if err := unix.Fstat(top, &st); err != nil {
		return err
	}
	if st.Dev != w.dev {
		return banger.Errorf(banger.CodeConflict, "something else is mounted at %s", w.Path).
			WithHint("unmount that in the VM")
	}
	for _, p := range paths {
		if err := removeFile(top, string(p)); err != nil {
			return err
		}
	}
	return nil
}

// removeFile removes one file, and then the directories above it that are empty.
func removeFile(top int, name string) error {
	if name == "" || path.IsAbs(name) || path.Clean(name) != name || name == ".." || name[:min(3, len(name))] == "../" {
		return banger.Errorf(banger.CodeInvalid, "%.200q is no path of a file in a workspace", name)
	}
	for flags := 0; name != "."; flags = unix.AT_REMOVEDIR {
		dir, err := unix.Openat2(top, path.Dir(name), &unix.OpenHow{Flags: openDir,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV})
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil // it is gone, or something else is there
		}
		if err != nil {
			return err
		}
		err = unix.Unlinkat(dir, path.Base(name), flags)
		unix.Close(dir)
		if flags == unix.AT_REMOVEDIR && err != nil {
			return nil // it is not empty
		}
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EISDIR) {
			return err
		}
		name = path.Dir(name)
	}
	return nil
}

// sync writes what was changed in a workspace to the disk.
func (w *workspace) sync() error {
	fd, err := unix.Open(w.upper(w.Generation), openDir, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Syncfs(fd)
}
