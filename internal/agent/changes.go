package agent

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/frame"
)

// changes answers with what differs from the image, as the tar of an OCI layer
// (image-spec layer.md), read from the upper directory of the overlay.
func (s *server) changes(conn net.Conn) {
	upper := s.system.Disk() + "/upper"
	if _, err := os.Stat(upper); err != nil {
		sendError(conn, banger.Errorf(banger.CodeInvalid, "this guest has no disk of its own"))
		return
	}
	k, err := s.enter()
	if err != nil {
		sendError(conn, err)
		return
	}
	defer k.leave()
	k.whenCut(func() { conn.SetWriteDeadline(time.Now().Add(tellTime)) })
	w := bufio.NewWriterSize(frame.Data(cuttable{conn, k}, frame.Stdout), frame.MaxData)
	err = writeChanges(upper, w)
	if err == nil {
		err = w.Flush()
	}
	if err != nil && k.isCut() {
		sendError(conn, cutOff())
		return
	}
	if err != nil {
		sendError(conn, banger.Errorf(banger.CodeGuest, "reading the VM's changes: %w", err))
		return
	}
	frame.WriteJSON(conn, frame.Exit, banger.Exit{})
}

// ours are files that banger writes in each VM, and that belong to no image.
var ours = map[string]bool{"etc/hostname": true, "etc/hosts": true, "etc/resolv.conf": true}

// isMountPoint reports whether banger makes a directory in each VM. If it is empty, it is not a change.
func isMountPoint(name string) bool {
	switch name {
	case "dev", "proc", "run", "run/secrets", "sys", "tmp", "var/lib/docker", "var/lib/containerd":
		return true
	}
	return path.Dir(name) == "lib/modules" || path.Dir(name) == "usr/lib/modules"
}

// isEmptyMountPoint reports whether nothing but empty mount points is in one.
func isEmptyMountPoint(at, name string) (bool, error) {
	entries, err := os.ReadDir(at)
	for _, e := range entries {
		below := path.Join(name, e.Name())
		if err != nil || !e.IsDir() || !isMountPoint(below) {
			return false, err
		}
		if empty, err := isEmptyMountPoint(path.Join(at, e.Name()), below); err != nil || !empty {
			return false, err
		}
	}
	return err == nil, err
}

// layerWriter turns an upper directory (overlayfs.rst) into a layer.
type layerWriter struct {
	tar   *tar.Writer
	links map[uint64]string // names of inodes that have several
}

// writeChanges writes an upper directory as a layer.
func writeChanges(upper string, w io.Writer) error {
	l := &layerWriter{tar: tar.NewWriter(w), links: map[uint64]string{}}
	if err := l.directory(upper, ""); err != nil {
		return err
	}
	return l.tar.Close()
}

// directory writes the entries of the directory at the path at, whose name in the image is name.
func (l *layerWriter) directory(at, name string) error {
	d, err := os.Open(at)
	if err != nil {
		return err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := l.entry(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), e.Name()), path.Join(name, e.Name())); err != nil {
			return fmt.Errorf("%.200q: %w", path.Join(name, e.Name()), err)
		}
	}
	return nil
}

func (l *layerWriter) entry(at, name string) error {
	var st unix.Stat_t
	if err := unix.Lstat(at, &st); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	h := &tar.Header{
		Name:    name,
		Format:  tar.FormatPAX,
		Mode:    int64(st.Mode & 0o7777),
		Uid:     int(st.Uid),
		Gid:     int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec),
	}
	switch {
	case ours[name] || kind == unix.S_IFSOCK:
		return nil
	case kind == unix.S_IFCHR && st.Rdev == 0:
		return l.mark(path.Join(path.Dir(name), ".wh."+path.Base(name)))
	case strings.HasPrefix(path.Base(name), ".wh."):
		return fmt.Errorf("its name means in a layer that another file is gone")
	}
	xattrs, opaque, err := readXattrs(at)
	if err != nil {
		return err
	}
	h.PAXRecords = xattrs
	if kind == unix.S_IFDIR {
		return l.subdirectory(at, h, opaque)
	}
	if first := l.links[st.Ino]; st.Nlink > 1 && first != "" {
		h.Typeflag, h.Linkname, h.PAXRecords = tar.TypeLink, first, nil
		return l.tar.WriteHeader(h)
	}
	l.links[st.Ino] = name
	switch kind {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
		return l.file(at, h)
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = os.Readlink(at); err != nil {
			return err
		}
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
		if kind == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
	}
	return l.tar.WriteHeader(h)
}

func (l *layerWriter) subdirectory(at string, h *tar.Header, opaque bool) error {
	name := h.Name
	if isMountPoint(name) {
		if empty, err := isEmptyMountPoint(at, name); err != nil || empty {
			return err
		}
	}
	h.Typeflag, h.Name = tar.TypeDir, name+"/"
	if err := l.tar.WriteHeader(h); err != nil {
		return err
	}
	if opaque {
		if err := l.mark(name + "/.wh..wh..opq"); err != nil {
			return err
		}
	}
	return l.directory(at, name)
}

// mark writes an empty file whose name has a meaning in a layer.
func (l *layerWriter) mark(name string) error {
	return l.tar.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Format: tar.FormatPAX})
}

// file writes as many bytes as h says, though the file may change meanwhile.
func (l *layerWriter) file(at string, h *tar.Header) error {
	f, err := os.OpenFile(at, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := l.tar.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyN(l.tar, f, h.Size)
	if err == io.EOF {
		_, err = io.CopyN(l.tar, zeros{}, h.Size-n)
	}
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// errRefers is the error for a renamed directory, or a file whose mode or owner was changed,
// if the kernel keeps such a change as a reference to the image.
var errRefers = errors.New("it refers to the image, because the kernel was set to keep changes so; " +
	"replace it in the VM by a copy (cp -a)")

// readXattrs returns the extended attributes as PAX records, without those of overlayfs
// itself, and whether a directory hides the image's directory of the same name. It
// returns errRefers for what is not wholly in the upper directory (boot.OverlayOptions).
func readXattrs(at string) (records map[string]string, opaque bool, err error) {
	list := make([]byte, 64<<10) // the most that the kernel gives (xattr(7))
	n, err := unix.Llistxattr(at, list)
	if err != nil {
		return nil, false, err
	}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(at, name, value)
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		if name == "trusted.overlay.redirect" || name == "trusted.overlay.metacopy" {
			return nil, false, errRefers
		}
		if strings.HasPrefix(name, "trusted.overlay.") {
			opaque = opaque || name == "trusted.overlay.opaque" && string(value[:n]) == "y"
			continue
		}
		if records == nil {
			records = map[string]string{}
		}
		records["SCHILY.xattr."+name] = string(value[:n])
	}
	return records, opaque, nil
}
