package boot

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/guest"
)

// mountFlags are the options of a banger.Tmpfs that are flags of mount(2). Those of clear take a flag away.
var (
	mountFlags = map[string]uintptr{"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV,
		"noexec": unix.MS_NOEXEC, "noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME,
		"relatime": unix.MS_RELATIME, "strictatime": unix.MS_STRICTATIME, "sync": unix.MS_SYNCHRONOUS}
	clearedFlags = map[string]uintptr{"rw": unix.MS_RDONLY, "suid": unix.MS_NOSUID, "dev": unix.MS_NODEV,
		"exec": unix.MS_NOEXEC, "atime": unix.MS_NOATIME, "diratime": unix.MS_NODIRATIME}
)

// tmpfsOptions returns the flags and the data of mount(2) for a tmpfs.
func tmpfsOptions(t banger.Tmpfs) (flags uintptr, data string) {
	flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	words := []string{"mode=1777"}
	for _, o := range t.Options {
		switch {
		case mountFlags[o] != 0:
			flags |= mountFlags[o]
		case clearedFlags[o] != 0:
			flags &^= clearedFlags[o]
		default:
			words = append(words, o) // a later one replaces an earlier one
		}
	}
	return flags, strings.Join(words, ",")
}

// protect mounts the file systems that the VM adds to the image, and makes the root read-only if the VM asks for that.
func (r rootDir) protect(c guest.Config) error {
	if c.ReadOnly {
		for _, dir := range c.Volumes {
			if err := r.mountAt(dir, func(at string) error { return unix.Mount(at, at, "", unix.MS_BIND, "") }); err != nil {
				return fmt.Errorf("keeping the volume %s writable: %w", dir, err)
			}
		}
	}
	for _, t := range c.Tmpfs {
		flags, data := tmpfsOptions(t)
		err := r.mountAt(t.Path, func(at string) error { return unix.Mount("tmpfs", at, "tmpfs", flags, data) })
		if err != nil {
			return fmt.Errorf("mounting a tmpfs at %s: %w", t.Path, err)
		}
	}
	if !c.ReadOnly {
		return nil
	}
	if err := r.setReadOnly(true); err != nil {
		return fmt.Errorf("making the root read-only: %w", err)
	}
	return nil
}

// setReadOnly changes only this mount, and not the overlay itself, which other mounts show too.
func (r rootDir) setReadOnly(on bool) error {
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND)
	if on {
		flags |= unix.MS_RDONLY
	}
	return unix.Mount("", string(r), "", flags, "")
}

// mountAt calls mount with the path of a directory of the image, which is made if it is missing.
func (r rootDir) mountAt(dir string, mount func(at string) error) error {
	fd, err := r.mkdir(strings.Trim(dir, "/"), 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return mount(procPath(fd))
}
