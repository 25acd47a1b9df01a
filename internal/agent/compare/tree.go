package compare

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
)

// dir is one directory of a tree: descriptors of the directory in the upper directory and in the image, or -1. A nil
// dir is not there.
type dir struct{ upper, lower int }

const openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC

// openTree opens the root of a tree. An upper directory that is not there is empty.
func openTree(image, upper string) (d *dir, err error) {
	d = &dir{-1, -1}
	if d.lower, err = unix.Open(image, openDir, 0); err != nil {
		return nil, fmt.Errorf("opening the image: %w", err)
	}
	if upper == "" {
		return d, nil
	}
	if d.upper, err = unix.Open(upper, openDir, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		unix.Close(d.lower)
		return nil, fmt.Errorf("opening what was changed: %w", err)
	}
	return d, nil
}

func (d *dir) close() {
	if d == nil {
		return
	}
	for _, fd := range []int{d.upper, d.lower} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// self returns the root of a tree as an entry.
func (d *dir) self() (*entry, error) {
	e := &entry{at: d.upper, name: ".", merged: d.lower >= 0}
	if d.upper < 0 {
		e.at, e.image = d.lower, true
	}
	return e, unix.Fstatat(e.at, ".", &e.st, unix.AT_SYMLINK_NOFOLLOW)
}

// errNames means that the names of a directory are too many.
var errNames = errors.New("it has too many files")

// namesIn returns the names in a directory. left is how many bytes they may have.
func namesIn(fd int, left *int) (names []string, err error) {
	own, err := unix.Openat(fd, ".", openDir, 0) // reading moves the place in the directory
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(own), ".")
	defer f.Close()
	for {
		some, err := f.Readdirnames(1000)
		for _, name := range some {
			if *left -= len(name); *left < 0 {
				return nil, errNames
			}
		}
		names = append(names, some...)
		if errors.Is(err, io.EOF) {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// entry is one file of a tree.
type entry struct {
	at     int // descriptor of its directory
	name   string
	image  bool // it is the image's own file
	opaque bool // a directory of the image with this name is hidden
	merged bool // a directory of the image with this name shows through
	parent *dir
	st     unix.Stat_t
	target string // of a symlink; set by state
}

func (e *entry) kind() uint32  { return e.st.Mode & unix.S_IFMT }
func (e *entry) isDir() bool   { return e != nil && e.kind() == unix.S_IFDIR }
func (e *entry) ofImage() bool { return e != nil && e.image }

// path returns a path of the file, which leads through no directory of the tree. Its calls must not follow symlinks.
func (e *entry) path() string { return fmt.Sprintf("/proc/self/fd/%d/%s", e.at, e.name) }

// look returns the file with a name, or nil if the tree has none.
func (d *dir) look(name string) (*entry, error) {
	if d == nil {
		return nil, nil
	}
	e := &entry{at: d.upper, name: name, parent: d}
	if d.upper >= 0 {
		err := unix.Fstatat(d.upper, name, &e.st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case err == nil && e.kind() == unix.S_IFCHR && e.st.Rdev == 0: // the image's file is gone
			return nil, nil
		case err == nil:
			return e, e.refine(d)
		case !errors.Is(err, unix.ENOENT):
			return nil, err
		}
	}
	if d.lower < 0 {
		return nil, nil
	}
	e.at, e.image = d.lower, true
	err := unix.Fstatat(d.lower, name, &e.st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return e, err
}

// errRefers means that a kernel has kept a change as a reference to the image, which our options forbid
// (boot.OverlayOptions).
var errRefers = errors.New("it refers to the image, because a kernel was set to keep changes so; " +
	"replace it in the VM by a copy (cp -a)")

// refine reads what overlayfs says of a file in an upper directory.
func (e *entry) refine(d *dir) error {
	value := make([]byte, 8)
	n, err := unix.Lgetxattr(e.path(), "trusted.overlay.opaque", value)
	e.opaque = err == nil && bytes.Equal(value[:n], []byte("y"))
	for _, name := range []string{"trusted.overlay.redirect", "trusted.overlay.metacopy"} {
		if _, err := unix.Lgetxattr(e.path(), name, nil); err == nil {
			return errRefers
		}
	}
	if e.isDir() && !e.opaque && d.lower >= 0 {
		var st unix.Stat_t
		err := unix.Fstatat(d.lower, e.name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		e.merged = err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
	}
	return nil
}

// enter opens a directory. It returns nil for another file.
func (e *entry) enter() (d *dir, err error) {
	if !e.isDir() {
		return nil, nil
	}
	d = &dir{-1, -1}
	fd, err := unix.Openat(e.at, e.name, openDir, 0)
	if err != nil {
		return nil, err
	}
	if e.image {
		d.lower = fd
		return d, nil
	}
	d.upper = fd
	if e.merged {
		if d.lower, err = unix.Openat(e.parent.lower, e.name, openDir, 0); err != nil {
			d.close()
			return nil, err
		}
	}
	return d, nil
}

// state describes the file.
func (e *entry) state() (*banger.FileState, error) {
	s := &banger.FileState{Mode: e.st.Mode, UID: e.st.Uid, GID: e.st.Gid}
	switch e.kind() {
	case unix.S_IFREG:
		s.Size = e.st.Size
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(e.at, e.name, target)
		if err != nil {
			return nil, err
		}
		e.target = string(target[:n])
		s.Target, _ = named(e.target)
	case unix.S_IFCHR, unix.S_IFBLK:
		s.Device = fmt.Sprintf("%d:%d", unix.Major(e.st.Rdev), unix.Minor(e.st.Rdev))
	}
	return s, nil
}

// maxXattrs is the size in bytes of a list of names, and of a value (xattr(7)).
const maxXattrs = 64 << 10

// xattrs returns the extended attributes of a file, without those of overlayfs.
func (e *entry) xattrs() (map[string]string, error) {
	if n, err := unix.Llistxattr(e.path(), nil); err == nil && n == 0 {
		return nil, nil
	}
	list, value := make([]byte, maxXattrs), make([]byte, maxXattrs)
	n, err := unix.Llistxattr(e.path(), list)
	if err != nil {
		if errors.Is(err, unix.ENOTSUP) {
			return nil, nil
		}
		return nil, err
	}
	all := map[string]string{}
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		n, err := unix.Lgetxattr(e.path(), name, value)
		if err != nil && !errors.Is(err, unix.ENODATA) {
			return nil, err
		}
		if err == nil {
			all[name] = string(value[:n])
		}
	}
	return all, nil
}

func sameXattrs(b, a *entry) (bool, error) {
	before, err := b.xattrs()
	if err != nil {
		return false, err
	}
	after, err := a.xattrs()
	return maps.Equal(before, after), err
}

// reason returns why a file could not be compared, for a person.
func reason(err error) string {
	if ours := []error{errNames, errRefers}; slices.ContainsFunc(ours, func(e error) bool { return errors.Is(err, e) }) {
		return err.Error()
	}
	return "it cannot be read: " + banger.Cause(err).Error()
}
