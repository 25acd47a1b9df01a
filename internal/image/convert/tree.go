package convert

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"

	"banger/internal/ext4"
)

const maxHops = 40 // symlinks on the way to one entry; the kernel's limit

// tree is the root file system while layers are applied to it, oldest first (image-spec layer.md). A node's Layer is
// the layer that wrote it last. The Names of a node are counted unless it is a directory.
type tree struct {
	w    *ext4.Writer
	root *ext4.Node

	current int32
	touched map[place]bool // names that the current layer wrote; nil if it has no whiteouts
}

// place is a name in a directory.
type place struct {
	dir  *ext4.Node
	name string
}

func newTree(w *ext4.Writer) *tree {
	t := &tree{w: w}
	t.root = t.directory()
	return t
}

// directory returns a directory that no layer describes.
func (t *tree) directory() *ext4.Node {
	return &ext4.Node{Mode: syscall.S_IFDIR | 0o755, Children: map[string]*ext4.Node{}, Layer: t.current}
}

func isDir(n *ext4.Node) bool     { return n.Mode&syscall.S_IFMT == syscall.S_IFDIR }
func isSymlink(n *ext4.Node) bool { return n.Mode&syscall.S_IFMT == syscall.S_IFLNK }

// apply adds one layer. Whiteouts affect only what earlier layers have, so they are applied last,
// wherever they are in the tar. So are hard links to later entries.
func (t *tree) apply(list []record) error {
	var whiteouts, late []record
	for _, r := range list {
		if r.node == nil {
			whiteouts = append(whiteouts, r)
		}
	}
	t.touched = nil
	if len(whiteouts) > 0 {
		t.touched = map[place]bool{}
	}
	for _, r := range list {
		if r.node == nil {
			continue
		}
		waits, err := t.add(r, false)
		if err != nil {
			return fmt.Errorf("entry %.200q: %w", r.name, err)
		}
		if waits {
			late = append(late, r)
		}
	}
	for _, r := range late {
		if _, err := t.add(r, true); err != nil {
			return fmt.Errorf("entry %.200q: %w", r.name, err)
		}
	}
	for _, r := range whiteouts {
		if err := t.whiteout(r.name); err != nil {
			return fmt.Errorf("entry %.200q: %w", r.name, err)
		}
	}
	t.current++
	return nil
}

// add applies one record. It reports waits if a hard link's target does not exist yet, unless last is set.
func (t *tree) add(r record, last bool) (waits bool, err error) {
	if r.target != "" {
		return t.link(r, last)
	}
	if r.name == "/" {
		t.setMeta(t.root, r.node)
		return false, nil
	}
	parent, err := t.parent(r.name, true)
	if err != nil {
		return false, err
	}
	base := path.Base(r.name)
	if old := parent.Children[base]; isDir(r.node) && old != nil && isDir(old) {
		t.setMeta(old, r.node)
		t.touch(parent, base)
		return false, nil
	}
	if isDir(r.node) {
		r.node.Children = map[string]*ext4.Node{}
	}
	r.node.Layer = t.current
	t.put(parent, base, r.node)
	return false, nil
}

// put gives a node a name and replaces what has this name.
func (t *tree) put(parent *ext4.Node, base string, n *ext4.Node) {
	n.Names++ // first, because n itself may have this name
	t.drop(parent, base)
	parent.Children[base] = n
	t.touch(parent, base)
}

// touch records that the current layer wrote a name.
func (t *tree) touch(parent *ext4.Node, base string) {
	if t.touched != nil {
		t.touched[place{parent, base}] = true
	}
}

// setMeta gives n the owner, permissions, time and attributes of from.
func (t *tree) setMeta(n, from *ext4.Node) {
	n.UID, n.GID, n.Mtime, n.Xattrs, n.Layer = from.UID, from.GID, from.Mtime, from.Xattrs, t.current
	n.Mode = n.Mode&syscall.S_IFMT | from.Mode&0o7777
}

// link makes a hard link. The owner, mode and time of its entry replace those of the file. Its
// attributes do so only if it has some, since many writers of tars leave them out here.
func (t *tree) link(r record, last bool) (waits bool, err error) {
	n, err := t.lookUp(r.target)
	if err != nil {
		return false, err
	}
	if n == nil {
		if last {
			return false, fmt.Errorf("hard link to %.200q, which is not in the image", r.target)
		}
		return true, nil
	}
	if isDir(n) {
		return false, fmt.Errorf("hard link to the directory %.200q", r.target)
	}
	n.Names++ // first, because the name may need a directory in the target's place
	parent, err := t.parent(r.name, true)
	if err != nil {
		return false, err
	}
	n.Names--
	t.put(parent, path.Base(r.name), n)
	kind := n.Mode & syscall.S_IFMT
	r.node.Xattrs = slices.DeleteFunc(r.node.Xattrs, func(x ext4.Xattr) bool { return !keepXattr(x.Name, kind) })
	if len(r.node.Xattrs) == 0 {
		r.node.Xattrs = n.Xattrs
	}
	if kind == syscall.S_IFLNK {
		r.node.Mode = n.Mode // a symlink has no mode of its own (symlink(7))
	}
	t.setMeta(n, r.node)
	return false, nil
}

// parent returns the directory of name and follows symlinks inside the root. If create is set, it makes missing
// directories. A file of a lower layer in the way becomes a directory; a file of this layer is an error.
func (t *tree) parent(name string, create bool) (*ext4.Node, error) {
	dir, _ := path.Split(name)
	at := t.root
	for rest := dir[1:]; ; { // most paths have no symlink
		part, after, more := strings.Cut(rest, "/")
		if !more {
			return at, nil
		}
		child := at.Children[part]
		if child == nil || !isDir(child) {
			hops := 0
			return t.walk(dir, create, &hops)
		}
		at, rest = child, after
	}
}

// walk descends from the root along a path and resolves each symlink.
func (t *tree) walk(way string, create bool, hops *int) (*ext4.Node, error) {
	dir := t.root
	var above []*ext4.Node // ancestors of dir
	todo := strings.Split(way, "/")
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
		if child != nil && isSymlink(child) {
			if *hops++; *hops > maxHops {
				return nil, fmt.Errorf("more than %d symlinks on the way", maxHops)
			}
			if strings.HasPrefix(child.Target, "/") {
				dir, above = t.root, nil
			}
			todo = append(strings.Split(child.Target, "/"), todo...)
			continue
		}
		if child == nil || !isDir(child) {
			if !create {
				return nil, nil
			}
			if child != nil && child.Layer == t.current {
				return nil, fmt.Errorf("%.200q is not a directory", part)
			}
			child = t.directory()
			t.put(dir, part, child)
		}
		above = append(above, dir)
		dir = child
	}
	return dir, nil
}

// lookUp returns the node of a name, or nil. It does not follow a symlink at the end of the name.
func (t *tree) lookUp(name string) (*ext4.Node, error) {
	if name == "/" {
		return t.root, nil
	}
	parent, err := t.parent(name, false)
	if err != nil || parent == nil {
		return nil, err
	}
	return parent.Children[path.Base(name)], nil
}

// whiteout hides what earlier layers have.
func (t *tree) whiteout(name string) error {
	base := path.Base(name)
	if base == opaqueMarker {
		parent, err := t.parent(name, true)
		if err != nil {
			return err
		}
		for child := range parent.Children {
			t.hide(parent, child)
		}
		return nil
	}
	if strings.HasPrefix(base, aufsPrefix) {
		return nil
	}
	parent, err := t.parent(name, false)
	if err != nil || parent == nil {
		return err
	}
	t.hide(parent, strings.TrimPrefix(base, whiteoutPrefix))
	return nil
}

// hide removes what earlier layers put at a name and keeps what this layer put there.
func (t *tree) hide(parent *ext4.Node, name string) {
	n := parent.Children[name]
	if n == nil {
		return
	}
	if isDir(n) {
		for child := range n.Children {
			t.hide(n, child)
		}
		if len(n.Children) > 0 || n.Layer == t.current {
			return
		}
	} else if t.touched[place{parent, name}] {
		return
	}
	t.drop(parent, name)
}

// drop removes a name. It frees the data of a file that has no names left.
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
		return
	}
	if n.Names--; n.Names == 0 {
		t.w.Free(n.Data)
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
		target := n.Target
		if !strings.HasPrefix(target, "/") {
			dir, _ := path.Split(name)
			target = dir + target // not cleaned: ".." is the parent of where dir leads
		}
		name = target
	}
	return path.Base(name) == "systemd"
}
