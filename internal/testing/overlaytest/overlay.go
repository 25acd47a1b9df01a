// Package overlaytest makes image layers as builders do, by working on a mounted stack of the
// layers below. It also lists what the kernel's own overlayfs shows for them, with which tests
// compare converted images. It needs root.
//
// It must not know how an image is converted. The product does not use it.
package overlaytest

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Stack is a stack of layers below a directory. The directory's file system must support user and
// trusted attributes and devices.
type Stack struct {
	dir    string
	uppers []string // oldest first
}

// New makes an empty stack in dir, which must exist.
func New(dir string) (*Stack, error) {
	for _, d := range []string{"empty", "merged"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	return &Stack{dir: dir}, nil
}

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w: %s", name, args, err, out)
	}
	return nil
}

// Layer makes one layer of the changes that work makes to the mounted stack.
func (s *Stack) Layer(work func(root string) error) error {
	upper := filepath.Join(s.dir, fmt.Sprintf("upper%d", len(s.uppers)))
	if err := s.mounted(upper, work); err != nil {
		return err
	}
	s.uppers = append(s.uppers, upper)
	return nil
}

// Len returns the number of layers.
func (s *Stack) Len() int { return len(s.uppers) }

// mounted mounts the layers so far, with upper above them unless it is "", and calls use.
func (s *Stack) mounted(upper string, use func(root string) error) (err error) {
	var lower []string
	for _, u := range slices.Backward(s.uppers) {
		lower = append(lower, u)
	}
	options := "lowerdir=" + strings.Join(append(lower, filepath.Join(s.dir, "empty")), ":")
	if upper != "" {
		work := upper + ".work"
		for _, d := range []string{upper, work} {
			if err := os.Mkdir(d, 0o755); err != nil {
				return err
			}
		}
		options += ",upperdir=" + upper + ",workdir=" + work
	}
	merged := filepath.Join(s.dir, "merged")
	if err := run("mount", "-t", "overlay", "overlay", "-o", options, merged); err != nil {
		return err
	}
	defer func() {
		if uerr := run("umount", merged); err == nil {
			err = uerr
		}
	}()
	return use(merged)
}

// Truth lists what the stack shows.
func (s *Stack) Truth() (list map[string]string, err error) {
	err = s.mounted("", func(root string) error {
		list, err = Describe(root)
		return err
	})
	return list, err
}

// WriteTar writes a layer, counted from 0, in the form of an image (image-spec layer.md).
func (s *Stack) WriteTar(out io.Writer, layer int) error {
	upper := s.uppers[layer]
	w := tar.NewWriter(out)
	first := map[uint64]string{}
	err := filepath.WalkDir(upper, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(upper, path)
		if err != nil {
			return err
		}
		return writeEntry(w, path, rel, first)
	})
	if err != nil {
		return err
	}
	return w.Close()
}

func writeEntry(w *tar.Writer, path, rel string, first map[uint64]string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFCHR && st.Rdev == 0 {
		return w.WriteHeader(&tar.Header{
			Name:   filepath.Join(filepath.Dir(rel), ".wh."+filepath.Base(rel)),
			Mode:   0o600,
			Format: tar.FormatPAX,
		})
	}
	h, err := header(path, rel, &st)
	if err != nil || h == nil {
		return err
	}
	opaque, err := attributes(h, path)
	if err != nil {
		return err
	}
	if before := first[st.Ino]; before != "" {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, before, 0
	} else if kind != unix.S_IFDIR {
		first[st.Ino] = rel
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeReg {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := io.Copy(w, f); err != nil {
			return err
		}
	}
	if opaque {
		return w.WriteHeader(&tar.Header{Name: rel + "/.wh..wh..opq", Mode: 0o600, Format: tar.FormatPAX})
	}
	return nil
}

// header returns the header of a file, or nil if tar cannot represent it.
func header(path, rel string, st *unix.Stat_t) (h *tar.Header, err error) {
	h = &tar.Header{Name: rel, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), Format: tar.FormatPAX,
		ModTime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec), PAXRecords: map[string]string{}}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		h.Linkname, err = os.Readlink(path)
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR:
		h.Typeflag = tar.TypeChar
	case unix.S_IFBLK:
		h.Typeflag = tar.TypeBlock
	default:
		return nil, nil
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	return h, err
}

// attributes adds extended attributes to a header, except those of overlayfs itself.
func attributes(h *tar.Header, path string) (opaque bool, err error) {
	attrs, err := xattrs(path)
	for name, value := range attrs {
		if name == "trusted.overlay.opaque" {
			opaque = value == "y"
		}
		if !strings.HasPrefix(name, "trusted.overlay.") {
			h.PAXRecords["SCHILY.xattr."+name] = value
		}
	}
	return opaque, err
}

func xattrs(path string) (map[string]string, error) {
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, err
		}
		all[name] = string(value[:n])
	}
	return all, nil
}

// Describe lists a mounted tree by path. Each entry has everything that an image can contain about
// it. Sockets are left out.
func Describe(root string) (map[string]string, error) {
	all := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		line, err := describeEntry(path, rel, first)
		if line != "" {
			all[rel] = line
		}
		return err
	})
	return all, err
}

func describeEntry(path, rel string, first map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	line := fmt.Sprintf("%o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch kind := st.Mode & unix.S_IFMT; kind {
	case unix.S_IFSOCK:
		return "", nil
	case unix.S_IFREG:
		sum, err := hashFile(path)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" %d %s", st.Size, sum)
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		line += " -> " + target
	case unix.S_IFCHR, unix.S_IFBLK:
		line += fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if first[st.Ino] == "" {
			first[st.Ino] = rel
		}
		line += " = " + first[st.Ino]
	}
	attrs, err := xattrs(path)
	var names []string
	for name := range attrs {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		line += fmt.Sprintf(" %s=%q", name, attrs[name])
	}
	return line, err
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// Directory returns a directory that is not on overlayfs, which refuses whiteouts and another overlay's upper
// directory. It goes with the test.
func Directory(t testing.TB) string {
	t.Helper()
	for _, parent := range []string{os.TempDir(), "/dev/shm", "/var/tmp"} {
		var fs unix.Statfs_t
		if unix.Statfs(parent, &fs) != nil || int64(fs.Type) == unix.OVERLAYFS_SUPER_MAGIC {
			continue
		}
		if dir, err := os.MkdirTemp(parent, "overlay-test-"); err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			return dir
		}
	}
	t.Fatal("all directories for temporary files lie on overlayfs: set TMPDIR to one that does not")
	return ""
}
