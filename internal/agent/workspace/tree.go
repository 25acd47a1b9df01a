package workspace

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/ignore"
)

const openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC

// dir is a directory of the upper directory.
type dir struct {
	path   string // in the workspace; "" is the top
	upper  int    // a descriptor
	base   int    // that of the baseline's directory with the same path, or -1
	hidden bool   // the baseline's files do not show through
	depth  int
	above  *dir

	rules   *ignore.Stack
	ignored bool        // only what is tracked is sent
	header  *tar.Header // goes before the first entry; nil if it is sent, or if the baseline has the same directory
}

func (d *dir) close() {
	for _, fd := range []int{d.upper, d.base} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

func (d *dir) join(name string) string {
	if d.path == "" {
		return name
	}
	return d.path + "/" + name
}

var (
	errNames  = errors.New("it has too many files")
	errDepth  = errors.New("it has too many directories above it")
	errPath   = errors.New("its path is too long")
	errRefers = errors.New("it refers to the baseline, because the kernel was set to keep changes so")
	errKind   = errors.New("it changed while it was read")
	errMark   = errors.New("its name means in a layer that another file is gone")
)

// reason returns why a file could not be read, for a person.
func reason(err error) string {
	if errors.Is(err, unix.ENOENT) {
		return "it was removed while it was read"
	}
	return banger.Cause(err).Error()
}

// names returns the names in the upper directory, sorted.
func (d *dir) names() (names []string, err error) {
	own, err := unix.Openat(d.upper, ".", openDir, 0) // reading moves the place in the directory
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(own), ".")
	defer f.Close()
	left := maxNames
	for {
		some, err := f.Readdirnames(1000)
		for _, name := range some {
			if left -= len(name); left < 0 {
				return nil, errNames
			}
		}
		names = append(names, some...)
		if errors.Is(err, io.EOF) {
			slices.Sort(names)
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// maxRules bounds the size of a file with rules in bytes.
const maxRules = 1 << 20

// readRules adds the rules of the directory's .gitignore, which may be the baseline's.
func (d *dir) readRules(c *changes) {
	if d.ignored {
		return
	}
	e, err := d.look(".gitignore")
	if err != nil || e != nil && e.kind() != unix.S_IFREG {
		return
	}
	at := d.upper
	if e == nil {
		if d.base < 0 || d.hidden {
			return
		}
		at = d.base
	}
	f, st, err := openFile(at, ".gitignore")
	if err != nil {
		return
	}
	defer f.Close()
	if st.Size > maxRules {
		c.note(d.join(".gitignore"), "it is too large, so its rules do not count")
		return
	}
	text, err := io.ReadAll(io.LimitReader(f, maxRules))
	if err == nil {
		d.rules = d.rules.Push(ignore.Parse(text, d.path))
	}
}

// openFile opens a regular file, and nothing else.
func openFile(at int, name string) (*os.File, unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ELOOP) {
			err = errKind
		}
		return nil, st, err
	}
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, st, errors.Join(err, errKind)
	}
	return os.NewFile(uintptr(fd), name), st, nil
}

// entry is one name in the upper directory.
type entry struct {
	dir     *dir
	name    string
	path    string // in the workspace
	st      unix.Stat_t
	hasBase bool        // the baseline has a file at the path
	base    unix.Stat_t // of that
	opaque  bool        // a directory that hides the baseline's
}

func (e *entry) kind() uint32     { return e.st.Mode & unix.S_IFMT }
func (e *entry) isDir() bool      { return e.kind() == unix.S_IFDIR }
func (e *entry) isWhiteout() bool { return e.kind() == unix.S_IFCHR && e.st.Rdev == 0 }
func (e *entry) isMark() bool     { return strings.HasPrefix(e.name, ".wh.") }
func (e *entry) baseKind() uint32 { return e.base.Mode & unix.S_IFMT }
func (e *entry) baseIsDir() bool  { return e.hasBase && e.baseKind() == unix.S_IFDIR }

// at returns a path of the file, which leads through no directory of the tree. Its calls must not follow symlinks.
func (e *entry) at() string { return fmt.Sprintf("/proc/self/fd/%d/%s", e.dir.upper, e.name) }

// look returns what the upper directory has under a name, or nil.
func (d *dir) look(name string) (*entry, error) {
	e := &entry{dir: d, name: name, path: d.join(name)}
	if len(e.path) >= unix.PathMax {
		return nil, errPath
	}
	if err := unix.Fstatat(d.upper, name, &e.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		return nil, err
	}
	if d.base >= 0 {
		err := unix.Fstatat(d.base, name, &e.base, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		e.hasBase = err == nil
	}
	switch e.kind() {
	case unix.S_IFDIR:
		value := make([]byte, 8)
		n, err := unix.Lgetxattr(e.at(), "trusted.overlay.opaque", value)
		e.opaque = err == nil && bytes.Equal(value[:n], []byte("y"))
		if _, err := unix.Lgetxattr(e.at(), "trusted.overlay.redirect", nil); err == nil {
			return nil, errRefers
		}
	case unix.S_IFREG:
		if _, err := unix.Lgetxattr(e.at(), "trusted.overlay.metacopy", nil); err == nil {
			return nil, errRefers
		}
	}
	return e, nil
}

// enter opens a directory.
func (e *entry) enter() (d *dir, err error) {
	d = &dir{path: e.path, upper: -1, base: -1, depth: e.dir.depth + 1, above: e.dir, rules: e.dir.rules,
		hidden: e.dir.hidden || e.opaque || !e.baseIsDir()}
	if d.depth > maxDepth {
		return nil, errDepth
	}
	if d.upper, err = unix.Openat(e.dir.upper, e.name, openDir, 0); err != nil {
		return nil, err
	}
	if e.baseIsDir() {
		if d.base, err = unix.Openat(e.dir.base, e.name, openDir, 0); err != nil {
			d.close()
			return nil, err
		}
	}
	return d, nil
}

// readLink returns the target of a symlink.
func readLink(at int, name string) (string, error) {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(at, name, target)
	return strings.Clone(string(target[:max(n, 0)])), err
}
