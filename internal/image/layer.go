package image

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
	"sync/atomic"
	"syscall"
	"unique"

	"banger"
	"banger/internal/ext4"
)

// Limits bound what one image may make us keep and write. A field of 0 means its default.
type Limits struct {
	Bytes   int64 // of all files, including holes and files that a later layer hides; at most the default, 64 GiB
	Entries int64 // of all layers together; default 2^20, which with one attribute each take 350 MiB of memory
	Ratio   int64 // of a layer's plain bytes to its compressed bytes; default 1000, checked above ratioFree
}

// HeapLimit is the value that a process which converts images should give debug.SetMemoryLimit, in bytes. The largest
// image needs about 350 MiB, and without a limit the garbage may take as much again.
const HeapLimit = 420 << 20

const (
	maxPath      = 4096
	maxNameBytes = 256 << 20
	ratioFree    = 1 << 30 // plain bytes of a layer that may have any ratio, for holes in dense tars
)

func (l Limits) orDefaults() Limits {
	if l.Bytes <= 0 || l.Bytes > rootfsSize {
		l.Bytes = rootfsSize
	}
	if l.Entries <= 0 {
		l.Entries = 1 << 20
	}
	if l.Ratio <= 0 {
		l.Ratio = 1000
	}
	return l
}

// budget is what is left of the limits for all layers of one image. The layers are read at the same time.
type budget struct {
	Limits
	bytes, entries, nameBytes atomic.Int64
}

// take counts one entry, before any of it is kept.
func (b *budget) take(h *tar.Header) error {
	if len(h.Name) > maxPath {
		return rule("its name has %d bytes, but at most %d are allowed", len(h.Name), maxPath)
	}
	names := int64(len(h.Name) + len(h.Linkname))
	for k, v := range h.PAXRecords {
		names += int64(len(k) + len(v))
	}
	if b.nameBytes.Add(names) > maxNameBytes {
		return rule("names and attributes of the image take more than %s", banger.FormatSize(maxNameBytes))
	}
	if b.entries.Add(1) > b.Entries {
		return rule("the image has more than %d entries", b.Entries)
	}
	if h.Size > b.Bytes || b.bytes.Add(h.Size) > b.Bytes {
		return rule("the files of the image take more than %s", banger.FormatSize(b.Bytes))
	}
	return nil
}

// rule returns an error about the rule that an entry breaks.
func rule(format string, args ...any) error { return fmt.Errorf(format, args...) }

// record is one entry of a layer. Its content is already written.
type record struct {
	name   string     // cleaned, absolute, inside the image
	target string     // of a hard link, in the same form
	node   *ext4.Node // for a hard link, only metadata; nil for a whiteout
}

// readLayer reads a layer's tar to its end, writes the contents of files to area, and returns the entries in order.
func readLayer(ctx context.Context, r io.Reader, area *ext4.Area, limits *budget) ([]record, error) {
	var list []record
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the layer's tar: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		// contextReader is needed because the holes of a sparse entry are read without reading r.
		rec, err := readEntry(h, &contextReader{ctx, tr}, area, limits)
		if err != nil {
			return nil, fmt.Errorf("entry %.200q: %w", h.Name, err)
		}
		if rec.name != "" {
			list = append(list, rec)
		}
	}
}

// readEntry returns the record of an entry. The record has no name if the entry is to be left out.
func readEntry(h *tar.Header, data io.Reader, area *ext4.Area, limits *budget) (record, error) {
	if err := limits.take(h); err != nil {
		return record{}, err
	}
	rec := record{name: path.Clean("/" + h.Name)}
	if below, isWhiteout := whiteoutName(rec.name); below {
		return record{}, nil // whiteouts have no children
	} else if isWhiteout {
		return rec, checkWhiteout(path.Base(rec.name))
	}
	if rec.name == "/" && h.Typeflag != tar.TypeDir {
		return rec, rule("the root is no directory")
	}
	if isTOC(rec.name) {
		return record{}, nil
	}
	var err error
	if h.Typeflag == tar.TypeLink {
		rec.target = path.Clean("/" + h.Linkname)
		rec.node = &ext4.Node{}
		return rec, setMeta(rec.node, h, 0)
	}
	rec.node, err = newNode(h, data, area)
	return rec, err
}

// isTOC reports whether name is a file that eStargz adds to a layer for its own use
// (stargz-snapshotter, docs/estargz.md).
func isTOC(name string) bool {
	return name == "/stargz.index.json" || name == "/.prefetch.landmark" || name == "/.no.prefetch.landmark"
}

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	aufsPrefix     = ".wh..wh." // old layers of aufs have such names
)

// whiteoutName reports whether a name lies below a whiteout, and whether it is a whiteout itself.
func whiteoutName(name string) (below, itself bool) {
	if !strings.Contains(name, "/"+whiteoutPrefix) {
		return false, false
	}
	return strings.Contains(path.Dir(name)+"/", "/"+whiteoutPrefix), strings.HasPrefix(path.Base(name), whiteoutPrefix)
}

func checkWhiteout(base string) error {
	switch strings.TrimPrefix(base, whiteoutPrefix) {
	case "", ".", "..":
		return rule("the whiteout names nothing")
	}
	return nil
}

// newNode makes the node of an entry that is not a hard link.
func newNode(h *tar.Header, data io.Reader, area *ext4.Area) (*ext4.Node, error) {
	n := &ext4.Node{}
	var kind uint32
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse: // the tar reader turns '\0' into TypeReg
		kind = syscall.S_IFREG
	case tar.TypeDir:
		kind = syscall.S_IFDIR
	case tar.TypeSymlink:
		kind = syscall.S_IFLNK
		if h.Linkname == "" || len(h.Linkname) > 4095 {
			return nil, rule("a symlink's target has %d bytes, but must have 1 to 4095", len(h.Linkname))
		}
		n.Target = h.Linkname
	case tar.TypeChar:
		kind = syscall.S_IFCHR
	case tar.TypeBlock:
		kind = syscall.S_IFBLK
	case tar.TypeFifo:
		kind = syscall.S_IFIFO
	default:
		return nil, rule("unknown type %q", h.Typeflag)
	}
	if kind == syscall.S_IFCHR || kind == syscall.S_IFBLK {
		if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff {
			return nil, rule("device number %d:%d", h.Devmajor, h.Devminor)
		}
		n.Major, n.Minor = uint32(h.Devmajor), uint32(h.Devminor)
	}
	if err := setMeta(n, h, kind); err != nil || kind != syscall.S_IFREG {
		return n, err
	}
	var err error
	n.Data, err = area.WriteData(data)
	return n, err
}

// setMeta copies owner, mode, time and attributes from a header.
func setMeta(n *ext4.Node, h *tar.Header, kind uint32) error {
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= math.MaxUint32 || int64(h.Gid) >= math.MaxUint32 {
		return rule("owner %d:%d cannot be represented", h.Uid, h.Gid)
	}
	n.UID, n.GID = uint32(h.Uid), uint32(h.Gid)
	n.Mode = kind | uint32(h.Mode)&0o7777
	n.Mtime = h.ModTime
	for name, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(name, "SCHILY.xattr.")
		if !ok || !keepXattr(attr, kind) {
			continue
		}
		if len(value) > ext4.MaxXattr {
			return rule("the extended attribute %.200q has %d bytes, but at most %d are allowed", attr, len(value),
				ext4.MaxXattr)
		}
		// A copy is kept because the header's strings share one block of memory.
		n.Xattrs = append(n.Xattrs, ext4.Xattr{Name: unique.Make(attr).Value(), Value: []byte(value)})
	}
	return nil
}

// keepXattr reports whether an attribute is kept. It drops attributes that would affect an overlay in the guest,
// attributes that ext4 cannot store, and user attributes where the kernel refuses them. The kind of a hard link is 0.
func keepXattr(name string, kind uint32) bool {
	if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
		return false
	}
	if strings.HasPrefix(name, "user.") && kind != syscall.S_IFREG && kind != syscall.S_IFDIR && kind != 0 {
		return false
	}
	return ext4.ValidXattr(name)
}

// contextReader is a reader that returns an error when the context has ended.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
