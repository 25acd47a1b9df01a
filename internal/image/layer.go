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

// Limits bound what one image may make us hold and write. The zero value of a field
// means its default.
type Limits struct {
	Bytes   int64 // of all files, holes and files hidden later counted; at most the default, 64 GiB
	Entries int64 // of all layers together; default 2^20, each with an attribute 350 MiB of memory
	Ratio   int64 // of a layer's plain bytes to its compressed ones; default 1000, checked above ratioFree
}

// HeapLimit is what a process that converts images should give debug.SetMemoryLimit,
// in bytes: the largest image needs some 350 MiB, and a collector that knows no limit
// lets garbage take as much again.
const HeapLimit = 420 << 20

const (
	maxPath      = 4096
	maxNameBytes = 256 << 20
	ratioFree    = 1 << 30 // plain bytes of a layer that may be of any ratio: holes of dense tars
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

// budget is what is left of the limits to all layers of one image, which are read
// at the same time.
type budget struct {
	Limits
	bytes, entries, nameBytes atomic.Int64
}

// take counts one entry, before anything of it is kept.
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

// rule is what an entry breaks.
func rule(format string, args ...any) error { return fmt.Errorf(format, args...) }

// record is one entry of a layer, its content already written.
type record struct {
	name   string     // cleaned, absolute, inside the image
	target string     // of a hard link, likewise
	node   *ext4.Node // of a hard link: metadata alone; nil: a whiteout
}

// readLayer reads a layer's tar to its end, writes the files' contents into area
// and returns the entries in their order.
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
		// The holes of a sparse entry are read without reading r.
		rec, err := readEntry(h, &contextReader{ctx, tr}, area, limits)
		if err != nil {
			return nil, fmt.Errorf("entry %.200q: %w", h.Name, err)
		}
		if rec.name != "" {
			list = append(list, rec)
		}
	}
}

// readEntry returns a record without a name for what is to be left out.
func readEntry(h *tar.Header, data io.Reader, area *ext4.Area, limits *budget) (record, error) {
	if err := limits.take(h); err != nil {
		return record{}, err
	}
	rec := record{name: path.Clean("/" + h.Name)}
	if below, isWhiteout := whiteoutName(rec.name); below {
		return record{}, nil // a whiteout has nothing below it
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

// isTOC recognises what eStargz adds to a layer for itself (stargz-snapshotter,
// docs/estargz.md).
func isTOC(name string) bool {
	return name == "/stargz.index.json" || name == "/.prefetch.landmark" || name == "/.no.prefetch.landmark"
}

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	aufsPrefix     = ".wh..wh." // what aufs left in layers of old
)

// whiteoutName reports whether a name is a whiteout, or lies below one.
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

// newNode makes what is no hard link.
func newNode(h *tar.Header, data io.Reader, area *ext4.Area) (*ext4.Node, error) {
	n := &ext4.Node{}
	var kind uint32
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse: // the reader turns '\0' into TypeReg
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
		// A copy, since the header's strings share one piece of memory with all of it.
		n.Xattrs = append(n.Xattrs, ext4.Xattr{Name: unique.Make(attr).Value(), Value: []byte(value)})
	}
	return nil
}

// keepXattr drops what would steer an overlay in the guest, what ext4 has no
// place for, and user attributes where the kernel refuses them. The kind of a hard
// link is 0.
func keepXattr(name string, kind uint32) bool {
	if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
		return false
	}
	if strings.HasPrefix(name, "user.") && kind != syscall.S_IFREG && kind != syscall.S_IFDIR && kind != 0 {
		return false
	}
	return ext4.ValidXattr(name)
}

// contextReader ends reading when the context does.
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
