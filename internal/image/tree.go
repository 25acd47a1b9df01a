package image

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
	"syscall"
	"time"

	"banger"
	"banger/internal/ext4"
)

// Limits on what a layer may make us hold.
const (
	maxEntries   = 4 << 20
	maxPath      = 4096
	maxNameBytes = 512 << 20
	maxHops      = 40         // symlinks on the way to one entry
	maxBytes     = rootfsSize // of all files, holes counted
)

// tree is the root file system while layers are applied to it, oldest first.
// Nodes know the layer that last wrote them, since whiteouts act only on what
// came with earlier layers.
type tree struct {
	w     *ext4.Writer
	root  *ext4.Node
	layer map[*ext4.Node]int
	uses  map[*ext4.Node]int // names of a node that is no directory

	current   int
	entries   int
	nameBytes int
	bytes     int64
	late      []lateLink // hard links whose target had not come yet
	epoch     time.Time
}

type lateLink struct {
	name   string
	target string
	header *tar.Header
}

func newTree(w *ext4.Writer) *tree {
	t := &tree{w: w, layer: map[*ext4.Node]int{}, uses: map[*ext4.Node]int{}, epoch: time.Unix(0, 0)}
	t.root = t.directory()
	return t
}

// directory is one that no layer describes.
func (t *tree) directory() *ext4.Node {
	n := &ext4.Node{Mode: syscall.S_IFDIR | 0o755, Children: map[string]*ext4.Node{}, Atime: t.epoch, Mtime: t.epoch, Ctime: t.epoch}
	t.layer[n] = t.current
	return n
}

func isDir(n *ext4.Node) bool     { return n.Mode&syscall.S_IFMT == syscall.S_IFDIR }
func isSymlink(n *ext4.Node) bool { return n.Mode&syscall.S_IFMT == syscall.S_IFLNK }

// apply reads one layer's tar.
func (t *tree) apply(ctx context.Context, r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the layer's tar: %w", err)
		}
		t.entries++
		t.nameBytes += len(h.Name) + len(h.Linkname)
		if t.entries > maxEntries || t.nameBytes > maxNameBytes || len(h.Name) > maxPath {
			return fmt.Errorf("the layer has too many or too long names")
		}
		if h.Size > maxBytes-t.bytes {
			return fmt.Errorf("entry %.200q: the files take more than %s", h.Name, banger.FormatSize(maxBytes))
		}
		t.bytes += h.Size
		// The holes of a sparse entry are read without reading r.
		if err := t.entry(h, &contextReader{ctx, tr}); err != nil {
			return fmt.Errorf("entry %.200q: %w", h.Name, err)
		}
	}
	for _, l := range t.late {
		if err := t.link(l.name, l.target, l.header, true); err != nil {
			return fmt.Errorf("entry %.200q: %w", l.name, err)
		}
	}
	t.late = nil
	t.current++
	return nil
}

func (t *tree) entry(h *tar.Header, data io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name := path.Clean("/" + h.Name)
	base := path.Base(name)
	if name == "/" {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("the root is no directory")
		}
		return t.setMeta(t.root, h, syscall.S_IFDIR)
	}
	if strings.HasPrefix(base, ".wh.") || underWhiteout(name) {
		return t.whiteout(name, base)
	}
	if base == ".." {
		return fmt.Errorf("the name climbs")
	}
	if h.Typeflag == tar.TypeLink {
		return t.link(name, path.Clean("/"+h.Linkname), h, false)
	}
	parent, err := t.parent(name, true)
	if err != nil {
		return err
	}
	old := parent.Children[base]
	if h.Typeflag == tar.TypeDir {
		if old == nil || !isDir(old) {
			t.drop(parent, base)
			old = t.directory()
			parent.Children[base] = old
		}
		return t.setMeta(old, h, syscall.S_IFDIR)
	}
	n, err := t.newNode(h, data)
	if err != nil {
		return err
	}
	t.drop(parent, base)
	parent.Children[base] = n
	t.uses[n] = 1
	return nil
}

// newNode makes what is neither directory nor hard link.
func (t *tree) newNode(h *tar.Header, data io.Reader) (*ext4.Node, error) {
	n := &ext4.Node{}
	var kind uint32
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse: // the reader turns '\0' into TypeReg
		kind = syscall.S_IFREG
	case tar.TypeSymlink:
		kind = syscall.S_IFLNK
		if h.Linkname == "" || len(h.Linkname) > 4095 {
			return nil, fmt.Errorf("a symlink's target has %d bytes, but must have 1 to 4095", len(h.Linkname))
		}
		n.Target = []byte(h.Linkname)
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
	if err := t.setMeta(n, h, kind); err != nil {
		return nil, err
	}
	if kind == syscall.S_IFREG {
		d, err := t.w.WriteData(data)
		if err != nil {
			return nil, err
		}
		n.Data = d
	}
	return n, nil
}

// setMeta copies owner, mode, times and attributes from a header.
func (t *tree) setMeta(n *ext4.Node, h *tar.Header, kind uint32) error {
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= math.MaxUint32 || int64(h.Gid) >= math.MaxUint32 {
		return fmt.Errorf("owner %d:%d cannot be represented", h.Uid, h.Gid)
	}
	n.UID, n.GID = uint32(h.Uid), uint32(h.Gid)
	n.Mode = kind | uint32(h.Mode)&0o7777
	n.Mtime = h.ModTime
	n.Atime, n.Ctime = h.AccessTime, h.ChangeTime
	if n.Atime.IsZero() {
		n.Atime = h.ModTime
	}
	if n.Ctime.IsZero() {
		n.Ctime = h.ModTime
	}
	t.layer[n] = t.current
	n.Xattrs = nil
	for record, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(record, "SCHILY.xattr.")
		if !ok || !keepXattr(name, kind) {
			continue
		}
		if n.Xattrs == nil {
			n.Xattrs = map[string][]byte{}
		}
		n.Xattrs[name] = []byte(value)
	}
	return nil
}

// keepXattr drops what would steer an overlay in the guest, what ext4 has no
// place for, and user attributes where the kernel refuses them.
func keepXattr(name string, kind uint32) bool {
	if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
		return false
	}
	if strings.HasPrefix(name, "user.") && kind != syscall.S_IFREG && kind != syscall.S_IFDIR {
		return false
	}
	return ext4.ValidXattr(name)
}

// link makes a hard link. A target that is not there may come later in the layer.
func (t *tree) link(name, target string, h *tar.Header, last bool) error {
	n, err := t.lookUp(target)
	if err != nil {
		return err
	}
	if n == nil {
		if last {
			return fmt.Errorf("hard link to %.200q, which is not in the image", target)
		}
		t.late = append(t.late, lateLink{name, target, h})
		return nil
	}
	if isDir(n) {
		return fmt.Errorf("hard link to the directory %.200q", target)
	}
	t.uses[n]++ // first: the name may need a directory in the target's place
	parent, err := t.parent(name, true)
	if err != nil {
		return err
	}
	base := path.Base(name)
	if parent.Children[base] == n {
		t.uses[n]--
		return nil
	}
	t.drop(parent, base)
	parent.Children[base] = n
	t.layer[n] = t.current
	return nil
}

// parent returns the directory that name lies in, following symlinks inside the
// root. With create, missing directories are made; a file of a lower layer in
// the way becomes a directory, one of this layer is an error.
func (t *tree) parent(name string, create bool) (*ext4.Node, error) {
	hops := 0
	dir, _ := path.Split(name)
	return t.walk(t.root, nil, dir, create, &hops)
}

// walk descends from dir along a path; above are dir's ancestors.
func (t *tree) walk(dir *ext4.Node, above []*ext4.Node, rest string, create bool, hops *int) (*ext4.Node, error) {
	todo := strings.Split(rest, "/")
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(above) > 0 {
				dir, above = above[len(above)-1], above[:len(above)-1]
			}
			continue
		}
		child := dir.Children[part]
		switch {
		case child == nil && !create:
			return nil, nil
		case child == nil:
			child = t.directory()
			dir.Children[part] = child
		case isSymlink(child):
			if *hops++; *hops > maxHops {
				return nil, fmt.Errorf("more than %d symlinks on the way", maxHops)
			}
			target := string(child.Target)
			if strings.HasPrefix(target, "/") {
				dir, above = t.root, nil
			}
			todo = append(strings.Split(target, "/"), todo...)
			continue
		case !isDir(child):
			if !create {
				return nil, nil
			}
			if t.layer[child] == t.current {
				return nil, fmt.Errorf("%.200q is no directory", part)
			}
			t.drop(dir, part)
			child = t.directory()
			dir.Children[part] = child
		}
		above = append(above, dir)
		dir = child
	}
	return dir, nil
}

// lookUp returns the node of a name, not following a symlink at its end, or nil.
func (t *tree) lookUp(name string) (*ext4.Node, error) {
	parent, err := t.parent(name, false)
	if err != nil || parent == nil {
		return nil, err
	}
	return parent.Children[path.Base(name)], nil
}

// underWhiteout reports whether a directory on the way is a whiteout, which
// cannot have contents.
func underWhiteout(name string) bool {
	for part := range strings.SplitSeq(path.Dir(name), "/") {
		if strings.HasPrefix(part, ".wh.") {
			return true
		}
	}
	return false
}

// whiteout hides what earlier layers have; it acts on those alone, so its place
// in the layer does not matter (image-spec layer.md).
func (t *tree) whiteout(name, base string) error {
	if underWhiteout(name) {
		return nil
	}
	hidden := strings.TrimPrefix(base, ".wh.")
	switch {
	case base == ".wh..wh..opq":
		parent, err := t.parent(name, true)
		if err != nil {
			return err
		}
		for child := range parent.Children {
			t.hide(parent, child)
		}
		return nil
	case strings.HasPrefix(base, ".wh..wh."):
		return nil // leftovers of aufs
	case hidden == "" || hidden == "." || hidden == "..":
		return fmt.Errorf("the whiteout names nothing")
	}
	parent, err := t.parent(name, false)
	if err != nil || parent == nil {
		return err
	}
	t.hide(parent, hidden)
	return nil
}

// hide removes what earlier layers put at a name and keeps what this one did.
func (t *tree) hide(parent *ext4.Node, name string) {
	n := parent.Children[name]
	if n == nil {
		return
	}
	if isDir(n) {
		for child := range n.Children {
			t.hide(n, child)
		}
		if len(n.Children) > 0 || t.layer[n] == t.current {
			return
		}
	} else if t.layer[n] == t.current {
		return
	}
	t.drop(parent, name)
}

// drop removes a name; the data of a file without names is given back.
func (t *tree) drop(parent *ext4.Node, name string) {
	n := parent.Children[name]
	if n == nil {
		return
	}
	delete(parent.Children, name)
	if isDir(n) {
		for child := range n.Children {
			t.drop(n, child)
		}
		delete(t.layer, n)
		return
	}
	if t.uses[n]--; t.uses[n] <= 0 {
		t.w.Free(n.Data)
		delete(t.uses, n)
		delete(t.layer, n)
	}
}

// usesSystemd reports whether /sbin/init is systemd, following symlinks.
func (t *tree) usesSystemd() bool {
	name := "/sbin/init"
	for range maxHops {
		n, err := t.lookUp(name)
		if err != nil || n == nil {
			return false
		}
		if !isSymlink(n) {
			break
		}
		target := string(n.Target)
		if !strings.HasPrefix(target, "/") {
			dir, _ := path.Split(name)
			target = dir + target // not cleaned: ".." is the parent of where dir leads
		}
		name = target
	}
	return path.Base(name) == "systemd"
}
