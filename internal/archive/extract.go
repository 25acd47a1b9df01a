package archive

import (
	"context"
	"crypto/rand"
	"errors"
	"hash/maphash"
	"io"
	"math"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/archive/pax"
)

// ExtractOptions says what an archive is and what of it is kept.
type ExtractOptions struct {
	Into     bool   // the destination is a directory for all entries; otherwise there is one file or tree
	Name     string // required name of that file or tree; "" allows any name
	Owners   bool   // give files their owners; otherwise the process owns them
	Special  bool   // make device nodes and fifos; otherwise refuse them
	NoXattrs bool   // set no extended attributes, and do not count those that are left out

	// Kind is the type (S_IFMT of a mode) that the one file or tree must have; 0 allows any.
	Kind uint32

	// Rights keeps attributes that grant rights to those who run a file or make files in a directory: setuid and
	// setgid, capabilities, default ACLs, attributes of root's name spaces. Without Rights they are left out and
	// counted.
	Rights bool

	// Unbounded allows any number of entries and bytes. Without it an archive has at most maxEntries, and leaves some
	// space on the file system (see room.go).
	Unbounded bool

	// Direct makes large files bypass the page cache if the file system can.
	Direct bool

	// Foreign says that the archive was not made by Write, which announces the targets of hard links. Hard links may
	// then refer to any file that this extraction has made.
	Foreign bool
}

// Extract writes the content of the tar r to dst, by docker's rules for a destination, and reads r to its end.
//
// The archive is hostile, and so may be the directory that it is written to. All names are resolved beneath the
// destination, without following a symlink (openat2(2)): no order of entries and no race with another process leads
// out of it. A file is written under a temporary name and then renamed, so it is complete under its own name.
// Existing files are never opened for writing. A directory does not replace anything else, and nothing else
// replaces a directory.
//
// Unless o.Into is set, an entry that is not a directory must be the only entry, and gets its name when r has ended
// without an error. If the extraction fails, the tree that it has made is removed; if it has added to a tree, the
// error says that the copy is incomplete.
func Extract(ctx context.Context, r io.Reader, dst string, o ExtractOptions) (banger.CopyReport, error) {
	x := newExtractor(ctx, r, o)
	defer x.close()
	err := x.extract(dst)
	return x.report, err
}

// extractor is one extraction.
type extractor struct {
	ctx    context.Context
	in     *pax.Reader
	opts   ExtractOptions
	report banger.CopyReport
	start  unix.Timespec
	temp   string // prefix of temporary names
	count  int

	root     int       // directory beneath which everything is written
	from, to string    // name of the tree in the archive and in root
	single   bool      // one file is expected, not a tree
	fresh    bool      // this extraction made the tree's root
	pending  *renaming // of the one file, until the end
	room     room

	path  string // of the directory that was entered last, beneath root
	dir   int    // that directory
	stack []level

	bulk  bulk
	seed  maphash.Seed
	links map[uint64]int     // by hash of the name: how many more names a file will get
	mine  map[inode]struct{} // all files made, if the archive is foreign
}

func newExtractor(ctx context.Context, r io.Reader, o ExtractOptions) *extractor {
	return &extractor{
		ctx:   ctx,
		in:    pax.NewReader(r),
		opts:  o,
		temp:  ".banger-cp-" + rand.Text()[:12] + "-",
		root:  -1,
		room:  room{statfs: unix.Fstatfs},
		dir:   -1,
		seed:  maphash.MakeSeed(),
		links: map[uint64]int{},
		mine:  map[inode]struct{}{},
	}
}

func (x *extractor) close() {
	x.bulk.close()
	for _, fd := range []int{x.root, x.dir} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// extract runs the extraction, and completes it or undoes it.
func (x *extractor) extract(dst string) error {
	err := x.run(dst)
	if err == nil {
		err = x.commit()
	}
	if err != nil && x.root >= 0 {
		err = x.giveUp(err, dst)
	}
	return err
}

// run extracts all entries.
func (x *extractor) run(dst string) error {
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &x.start); err != nil { // the clock of inodes
		return err
	}
	h, err := x.in.Next()
	if err == io.EOF && !x.opts.Into {
		return pax.Damaged("it is empty")
	}
	if err == nil || err == io.EOF {
		if oerr := x.open(dst, h); oerr != nil {
			return oerr
		}
	}
	for ; err == nil; h, err = x.in.Next() {
		if err := x.ctx.Err(); err != nil {
			return banger.Canceled(err)
		}
		if x.single && x.report.Entries > 0 {
			return pax.Refuse(h.Name, "follows a file that was to come alone")
		}
		if err := x.weighEntry(h); err != nil {
			return err
		}
		if err := x.entry(h); err != nil {
			return failure("writing", h.Name, err)
		}
		x.report.Entries++
	}
	if err != io.EOF {
		return err
	}
	if err := x.leave(""); err != nil {
		return err
	}
	limit := int64(maxTail)
	if x.opts.Unbounded {
		limit = math.MaxInt64
	}
	return x.in.Drain(limit)
}

// open finds the destination. h is the first entry, or nil.
func (x *extractor) open(dst string, h *pax.Header) (err error) {
	if x.opts.Into {
		x.from, x.to = ".", "."
		x.root, err = unix.Open(dst, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return failure("cannot copy to", dst, err)
		}
		return nil
	}
	name, err := cleanName(h.Name)
	isDir := h.Kind == pax.KindDir
	switch {
	case err != nil:
		return err
	case strings.Contains(name, "/") || name == "." && !isDir || x.opts.Name != "" && name != x.opts.Name:
		return pax.Refuse(h.Name, "is not what was asked for")
	case x.opts.Kind != 0 && x.opts.Kind != fileType(h.Kind):
		return pax.Refuse(h.Name, "is a %s, but a %s was asked for", kindName(fileType(h.Kind)), kindName(x.opts.Kind))
	}
	x.from, x.single = name, !isDir
	x.root, x.to, err = destination(dst, isDir, name)
	return err
}

// entry writes one entry.
func (x *extractor) entry(h *pax.Header) error {
	name, err := x.place(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		if h.Kind != pax.KindDir {
			return pax.Refuse(h.Name, "would take the place of the destination")
		}
		return nil // the destination keeps its own attributes
	}
	parent, base := path.Split(name)
	dir, err := x.enter(strings.TrimSuffix(parent, "/"), h.Name)
	if err != nil {
		return err
	}
	switch h.Kind {
	case pax.KindDir:
		return x.directory(dir, name, base, h)
	case pax.KindFile:
		err = x.file(dir, base, h)
	case pax.KindLink:
		return x.link(dir, base, h)
	case pax.KindSymlink:
		err = x.symlink(dir, base, h)
	default:
		err = x.special(dir, base, h)
	}
	if err == nil && h.Links > 1 {
		if len(x.links) >= maxLinks {
			return pax.Refuse(h.Name, "is one of too many hard-linked files")
		}
		x.links[maphash.String(x.seed, name)] = h.Links - 1
	}
	return err
}

// cleanName removes "." and empty parts from a name in an archive.
func cleanName(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return "", pax.Refuse(name, "has an absolute name")
	}
	if len(name) > maxName {
		return "", pax.Refuse(name, "has a name of more than %d bytes", maxName)
	}
	parts := strings.Split(name, "/")
	kept := parts[:0]
	for _, p := range parts {
		switch p {
		case "", ".":
		case "..":
			return "", pax.Refuse(name, `has a name with ".."`)
		default:
			kept = append(kept, p)
		}
	}
	if len(kept) > maxDepth {
		return "", pax.Refuse(name, "lies more than %d directories deep", maxDepth)
	}
	if len(kept) == 0 {
		return ".", nil
	}
	return strings.Join(kept, "/"), nil
}

// place returns the path beneath root for an entry.
func (x *extractor) place(raw string) (string, error) {
	name, err := cleanName(raw)
	if err != nil {
		return "", err
	}
	rest := name
	if x.from != "." {
		var ok bool
		rest, ok = strings.CutPrefix(name, x.from)
		if !ok || rest != "" && rest[0] != '/' {
			return "", pax.Refuse(raw, "lies outside of %.300q", x.from)
		}
	}
	return path.Join(x.to, rest), nil
}

// beneath opens a path beneath root without following any symlink.
func (x *extractor) beneath(name string, flags uint64) (int, error) {
	if flags&unix.O_DIRECTORY == 0 {
		flags |= unix.O_NOFOLLOW // opens a symlink at the end itself
	}
	return unix.Openat2(x.root, name, &unix.OpenHow{Flags: flags | unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
}

// enter opens the directory name; "" means root. It makes the directory if the archive has left it out. entry is
// the entry that needs it, for errors.
func (x *extractor) enter(name, entry string) (int, error) {
	if x.dir >= 0 && name == x.path {
		return x.dir, nil
	}
	if err := x.leave(name); err != nil {
		return -1, err
	}
	at := name
	if at == "" {
		at = "."
	}
	fd, err := x.beneath(at, unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) && name != "" {
		parent, base := path.Split(name)
		above, err := x.enter(strings.TrimSuffix(parent, "/"), entry)
		if err != nil {
			return -1, err
		}
		if err := unix.Mkdirat(above, base, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, err
		}
		fd, err = x.beneath(at, unix.O_DIRECTORY)
		if err != nil {
			return -1, blocked(entry, err)
		}
	} else if err != nil {
		return -1, blocked(entry, err)
	}
	x.moveTo(name, fd)
	return fd, x.reenter(fd)
}

// moveTo makes fd the directory that was entered last.
func (x *extractor) moveTo(name string, fd int) {
	if x.dir >= 0 {
		unix.Close(x.dir)
	}
	x.path, x.dir = name, fd
}

// blocked explains why a parent directory cannot be entered.
func blocked(entry string, err error) error {
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV):
		return pax.Refuse(entry, "lies behind a symlink")
	case errors.Is(err, unix.ENOTDIR):
		return pax.Refuse(entry, "lies behind a file that is not a directory")
	}
	return err
}

// under calls f with a temporary name in dir, and renames to base what f made.
func (x *extractor) under(dir int, base string, h *pax.Header, f func(temp string) error) error {
	x.count++
	temp := x.temp + strconv.Itoa(x.count)
	err := f(temp)
	if err == nil && x.opts.Foreign && h.Kind != pax.KindLink {
		err = x.remember(dir, temp)
	}
	switch n := (&renaming{dir, temp, base, h}); {
	case err != nil:
	case x.single:
		x.pending = n
		return nil
	default:
		err = n.do()
	}
	if err != nil || h.Kind == pax.KindLink { // rename(2) keeps both names of one file
		unix.Unlinkat(dir, temp, 0)
	}
	return err
}

// file writes a regular file.
func (x *extractor) file(dir int, base string, h *pax.Header) error {
	return x.under(dir, base, h, func(temp string) error {
		pieces, err := x.in.Pieces(h)
		if err != nil {
			return err
		}
		fd, err := openAt(dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		err = x.content(fd, h, pieces)
		if err == nil {
			err = x.attributes(fd, h)
		}
		if cerr := closeFD(fd); err == nil {
			err = cerr
		}
		return err
	})
}

// content writes the data of a file.
func (x *extractor) content(fd int, h *pax.Header, pieces []pax.Piece) error {
	if h.Sparse {
		if err := unix.Ftruncate(fd, h.RealSize); err != nil {
			return err
		}
	}
	if x.opts.Direct && !h.Sparse && h.Size >= bulkLeast { // space for all of it, or an error before any of it comes
		if err := unix.Fallocate(fd, 0, 0, h.Size); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	for _, p := range pieces {
		if err := x.piece(fd, p); err != nil {
			return err
		}
	}
	return nil
}

// piece writes one piece of a file.
func (x *extractor) piece(fd int, p pax.Piece) error {
	at := p.Offset
	write := func(b []byte) error {
		at += int64(len(b))
		return writeAt(fd, b, at-int64(len(b)))
	}
	end := func() error { return nil }
	if x.opts.Direct && p.Length >= bulkLeast {
		if err := x.bulk.begin(fd, p.Offset); err != nil {
			return err
		}
		write, end = x.bulk.write, x.bulk.flush
	}
	err := x.in.Data(p.Length, func(b []byte) error {
		if err := x.ctx.Err(); err != nil {
			return banger.Canceled(err)
		}
		x.report.Bytes += int64(len(b))
		if err := x.weigh(int64(len(b))); err != nil {
			return err
		}
		return write(b)
	})
	if err == nil {
		err = end()
	}
	return err
}

// writeAt writes all of b at an offset.
func writeAt(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := pwrite(fd, b, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}
