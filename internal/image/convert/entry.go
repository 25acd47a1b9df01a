package convert

import (
	"archive/tar"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
	"syscall"
	"unique"

	"banger/internal/ext4"
)

// record is one entry of a layer. Its content is already written.
type record struct {
	name   string     // cleaned, absolute, inside the image
	target string     // of a hard link, in the same form
	node   *ext4.Node // for a hard link, only metadata; nil for a whiteout
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
		return rec, fmt.Errorf("the root is not a directory")
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

// checkWhiteout returns an error for a whiteout that names no entry.
func checkWhiteout(base string) error {
	switch strings.TrimPrefix(base, whiteoutPrefix) {
	case "", ".", "..":
		return fmt.Errorf("the whiteout names nothing")
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
			return nil, fmt.Errorf("a symlink's target has %d bytes, but must have 1 to 4095", len(h.Linkname))
		}
		n.Target = h.Linkname
	case tar.TypeChar:
		kind = syscall.S_IFCHR
	case tar.TypeBlock:
		kind = syscall.S_IFBLK
	case tar.TypeFifo:
		kind = syscall.S_IFIFO
	default:
		return nil, fmt.Errorf("unknown type %q", h.Typeflag)
	}
	if kind == syscall.S_IFCHR || kind == syscall.S_IFBLK {
		if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff {
			return nil, fmt.Errorf("device number %d:%d", h.Devmajor, h.Devminor)
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
		return fmt.Errorf("owner %d:%d cannot be represented", h.Uid, h.Gid)
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
			return fmt.Errorf("the extended attribute %.200q has %d bytes, but at most %d are allowed", attr, len(value),
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
