package archive

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/archive/pax"
	"banger/internal/frame"
)

// WriteOptions says how a file or tree is archived.
type WriteOptions struct {
	Name     string // name in the archive; "." for a directory's content
	Follow   bool   // archive the target of a symlink at the source
	NoXattrs bool   // leave out extended attributes

	// Frame is the type of the frames in which the tar is written; 0 writes it without frames.
	Frame frame.Type
}

// Write writes the file or tree at src as a tar to w. It follows no symlink within the tree. It leaves out sockets,
// and the content of /proc, /sys and the like unless src is there.
func Write(ctx context.Context, w io.Writer, src string, o WriteOptions) (banger.CopyReport, error) {
	a := &archiver{ctx: ctx, out: newOutput(w, o.Frame), opts: o, links: map[inode]*linked{}}
	follow := o.Follow || o.Name == "." || strings.HasSuffix(src, "/") || strings.HasSuffix(src, "/.")
	err := a.top(src, follow)
	if err == nil {
		err = a.out.zeros(2 * pax.BlockSize)
	}
	if err == nil {
		err = a.out.flush()
	}
	return a.report, err
}

// archiver writes one archive.
type archiver struct {
	ctx    context.Context
	out    *output
	opts   WriteOptions
	report banger.CopyReport
	links  map[inode]*linked
	xattrs []byte // a buffer, made when it is first needed
}

type inode struct{ dev, ino uint64 }

// linked is a file that has several names.
type linked struct {
	name string
	left int // names that were not seen yet
}

// top writes the file or tree at src.
func (a *archiver) top(src string, follow bool) error {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if follow {
		flags = 0
	}
	var st unix.Stat_t
	if err := unix.Fstatat(unix.AT_FDCWD, src, &st, flags); err != nil {
		return failure("cannot copy", src, err)
	}
	switch kind := st.Mode & unix.S_IFMT; {
	case kind == unix.S_IFSOCK:
		return banger.Errorf(banger.CodeInvalid, "%q is a socket, which cannot be copied", src)
	case a.opts.Name == "." && kind != unix.S_IFDIR:
		return banger.Errorf(banger.CodeInvalid, "%q is not a directory, so it has no content to copy", src)
	}
	at := place{dir: unix.AT_FDCWD, name: src, follow: follow, top: true}
	if err := a.entry(at, a.opts.Name, &st); err != nil {
		return failure("reading", src, err)
	}
	return nil
}

// place is where an entry is on the file system.
type place struct {
	dir    int
	name   string
	dev    uint64 // of the directory
	follow bool
	top    bool
	depth  int
}

// path returns a path for calls that need a path.
func (p place) path() string {
	if p.dir == unix.AT_FDCWD {
		return p.name
	}
	return procPath(p.dir) + "/" + p.name
}

func (p place) open(flags int) (int, error) {
	if !p.follow {
		flags |= unix.O_NOFOLLOW
	}
	for {
		fd, err := unix.Openat(p.dir, p.name, flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// entry writes what is at p under the given name in the archive.
func (a *archiver) entry(p place, name string, st *unix.Stat_t) error {
	if err := a.ctx.Err(); err != nil {
		return banger.Canceled(err)
	}
	if len(name) > maxName || p.depth > maxDepth {
		return banger.Errorf(banger.CodeInvalid, "%.300q lies too deep: names may have %d bytes and %d directories", name,
			maxName, maxDepth)
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK {
		a.report.Sockets++
		return nil
	}
	h := newHeader(name, st)
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		if first := a.firstName(h, st); first != "" {
			h.Kind, h.Target, h.Links = pax.KindLink, first, 0
			return a.header(h)
		}
	}
	switch kind {
	case unix.S_IFDIR:
		return a.directory(p, h, st)
	case unix.S_IFREG:
		return a.file(p, h)
	case unix.S_IFLNK:
		target, err := readlink(p.dir, p.name)
		if err != nil {
			return err
		}
		h.Target = target
	}
	if err := a.readXattrs(p.path(), h, unix.Llistxattr, unix.Lgetxattr); err != nil {
		return err
	}
	return a.header(h)
}

// newHeader returns the header of a file, without what only its kind has.
func newHeader(name string, st *unix.Stat_t) *pax.Header {
	h := &pax.Header{
		Name:  name,
		Mode:  st.Mode & 0o7777,
		UID:   st.Uid,
		GID:   st.Gid,
		Mtime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Kind, h.Size = pax.KindFile, st.Size
	case unix.S_IFDIR:
		h.Kind, h.Name = pax.KindDir, name+"/"
	case unix.S_IFLNK:
		h.Kind = pax.KindSymlink
	case unix.S_IFIFO:
		h.Kind = pax.KindFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Kind, h.Major, h.Minor = pax.KindChar, unix.Major(st.Rdev), unix.Minor(st.Rdev)
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Kind = pax.KindBlock
		}
	}
	return h
}

// firstName returns the name under which a file already is in the archive. If there is none, it records this name
// and returns "". A file is forgotten after the last of its names.
func (a *archiver) firstName(h *pax.Header, st *unix.Stat_t) string {
	id := inode{st.Dev, st.Ino}
	l := a.links[id]
	if l == nil {
		h.Links = int(st.Nlink)
		if len(a.links) >= maxLinks {
			h.Links = 0 // its other names become separate files
			return ""
		}
		a.links[id] = &linked{h.Name, int(st.Nlink) - 1}
		return ""
	}
	if l.left--; l.left == 0 {
		delete(a.links, id)
	}
	return l.name
}

// header writes the header of an entry.
func (a *archiver) header(h *pax.Header) error {
	b, err := h.Encode()
	if err != nil {
		return err
	}
	a.report.Entries++
	_, err = a.out.Write(b)
	return err
}

// directory writes a directory and all its entries.
func (a *archiver) directory(p place, h *pax.Header, st *unix.Stat_t) error {
	fd, err := p.open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(fd), p.name)
	defer d.Close()
	if err := a.fileXattrs(fd, h); err != nil {
		return err
	}
	if err := a.header(h); err != nil {
		return err
	}
	if !p.top && st.Dev != p.dev && isKernels(fd) {
		return nil
	}
	for {
		names, err := d.Readdirnames(256)
		for _, n := range names {
			at := place{dir: fd, name: n, dev: st.Dev, depth: p.depth + 1}
			if err := a.child(at, h.Name+n); err != nil {
				return failure("reading", h.Name+n, err)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// child writes an entry of a directory. An entry that is gone is not an error.
func (a *archiver) child(p place, name string) error {
	var st unix.Stat_t
	err := unix.Fstatat(p.dir, p.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.entry(p, name, &st)
}

// isKernels reports whether a file system is a view of the kernel and not of files (statfs(2)).
func isKernels(fd int) bool {
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil {
		return false
	}
	switch int64(fs.Type) & 0xffffffff {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC,
		unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.PSTOREFS_MAGIC,
		unix.SELINUX_MAGIC:
		return true
	}
	return false
}

// file writes a regular file, which may change meanwhile.
func (a *archiver) file(p place, h *pax.Header) error {
	fd, err := p.open(unix.O_RDONLY | unix.O_NONBLOCK) // it may have become a fifo
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return banger.Errorf(banger.CodeConflict, "%.300q became something else while it was read", h.Name)
	}
	h.Size = st.Size
	if err := a.fileXattrs(fd, h); err != nil {
		return err
	}
	if st.Size == 0 {
		return a.unsized(fd, h)
	}
	pieces := []pax.Piece{{Length: st.Size}}
	if st.Blocks*pax.BlockSize < st.Size {
		if pieces, h.Sparse, err = findPieces(fd, st.Size); err != nil {
			return err
		}
		if !h.Sparse {
			pieces = []pax.Piece{{Length: st.Size}}
		}
	}
	return a.content(fd, h, pieces)
}

// content writes the header and the pieces of a file.
func (a *archiver) content(fd int, h *pax.Header, pieces []pax.Piece) error {
	var sparseMap []byte
	if h.Sparse {
		sparseMap = pax.EncodeMap(pieces, h.Size)
		h.RealSize, h.Size = h.Size, int64(len(sparseMap))
		for _, p := range pieces {
			h.Size += p.Length
		}
	}
	if err := a.header(h); err != nil {
		return err
	}
	if _, err := a.out.Write(sparseMap); err != nil {
		return err
	}
	var short int64
	for _, p := range pieces {
		if err := a.ctx.Err(); err != nil {
			return banger.Canceled(err)
		}
		n, err := a.out.file(fd, p.Offset, p.Length)
		if err != nil {
			return err
		}
		short += n
		a.report.Bytes += p.Length
	}
	if short > 0 {
		a.report.Changed++
	}
	return a.out.pad()
}

// maxUnsized is how much is read of a file that reports a size of 0, as files of /proc do.
const maxUnsized = 64 << 10

// unsized writes a file that reports a size of 0.
func (a *archiver) unsized(fd int, h *pax.Header) error {
	var b []byte
	var probe [1]byte
	n, err := readAt(fd, probe[:], 0)
	if n > 0 {
		b = make([]byte, maxUnsized+1)
		for k := n; k > 0 && n < len(b) && err == nil; n += k {
			k, err = readAt(fd, b[n:], int64(n))
		}
		b[0] = probe[0]
	}
	if err != nil {
		return err
	}
	if n > maxUnsized {
		return banger.Errorf(banger.CodeInvalid, "%.300q has no size, so it cannot be archived", h.Name).
			WithHint("read it with banger exec VM cat")
	}
	h.Size = int64(n)
	a.report.Bytes += h.Size
	if err := a.header(h); err != nil {
		return err
	}
	if _, err := a.out.Write(b[:n]); err != nil {
		return err
	}
	return a.out.pad()
}

// fileXattrs reads the extended attributes of an open file.
func (a *archiver) fileXattrs(fd int, h *pax.Header) error {
	return a.readXattrs("", h, func(_ string, b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(_, name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
}

// readXattrs reads the extended attributes of the file at a path.
func (a *archiver) readXattrs(at string, h *pax.Header, list func(string, []byte) (int, error),
	get func(string, string, []byte) (int, error)) error {
	if a.opts.NoXattrs {
		return nil
	}
	if a.xattrs == nil {
		a.xattrs = make([]byte, 128<<10) // twice the kernel's limit (xattr(7))
	}
	names, value := a.xattrs[:64<<10], a.xattrs[64<<10:]
	n, err := list(at, names)
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if name == "" || isMachines(name) || strings.Contains(name, "=") {
			continue
		}
		n, err := get(at, name, value)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue
		}
		if err != nil {
			return err
		}
		if h.Xattrs == nil {
			h.Xattrs = map[string]string{}
		}
		h.Xattrs[name] = string(value[:n])
	}
	return nil
}

// Base returns docker's name for a source in the archive: the last part of its path, or "." for the content of a
// directory that has no name of its own or is given as "DIR/.".
func Base(src string) string {
	if src == "." || strings.HasSuffix(src, "/.") {
		return "."
	}
	switch b := path.Base(src); b {
	case "/", "..":
		return "."
	default:
		return b
	}
}
