// Package ext4 writes an ext4 file system straight into a sparse file: no root,
// no mount, no helper program. The layout is fixed first, file contents stream
// to their final blocks as they are read, and the tree (inodes, directories,
// bitmaps) is written last, so nothing is ever buffered or written twice.
//
// Equal input gives equal bytes. Parts that would be zero are not written, so an
// empty file system of any size costs next to nothing.
//
// It follows the kernel's Documentation/filesystems/ext4 and knows nothing of
// images, layers or VMs.
package ext4

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// BlockSize is the size in bytes of a block; no other size is written.
const BlockSize = 4096

// Limits of Options.Size in bytes.
const (
	MinSize = 64 << 20
	MaxSize = 16 << 40
)

// MaxSymlink is the longest symlink target in bytes: with its NUL it fills a block.
const MaxSymlink = BlockSize - 1

// maxLinks is the most names a non-directory can have (EXT4_LINK_MAX).
const maxLinks = 65000

var (
	// ErrNoSpace says that the file system has no free block or inode left.
	ErrNoSpace = errors.New("no space left in the ext4 file system")
	// ErrXattrSize says that a node's extended attributes do not fit into its
	// inode and one block.
	ErrXattrSize = errors.New("extended attributes exceed one ext4 block")
)

// File is where the image goes. It must read as zeros wherever nothing was
// written. If it also has the method PunchHole(offset, length int64) error, the
// blocks given back by Free are released through it; its failure is ignored.
type File interface {
	io.WriterAt
	Truncate(size int64) error
}

// Options fix the layout.
type Options struct {
	Size     int64     // bytes, a multiple of BlockSize between MinSize and MaxSize
	Inodes   uint32    // at least so many; 0 means one per 16 KiB
	UUID     [16]byte  // of the file system; seeds all checksums
	HashSeed [16]byte  // of directory hashes
	Label    string    // at most 16 bytes
	Time     time.Time // when the file system was made
	Journal  bool      // wanted on anything that is ever mounted writable
}

// Writer writes one file system. It is not safe for concurrent use, and of no
// use after an error other than ErrNoSpace.
type Writer struct {
	file File
	opts Options
	geo  geometry
	seed uint32 // of all metadata checksums: crc32c(~0, UUID)

	next, runEnd uint64 // the allocator's cursor: the free run [next, runEnd)
	group        uint64 // the group that the run is in
	freed        []run  // given back, reused only when the cursor has reached the end

	chunk   []byte // what WriteData reads into
	pending []byte // blocks waiting to be written at pendingAt
	pendAt  uint64

	journal Data
	inodes  inodeTable
	dirs    []uint32 // directories per group
	order   []*Node  // by inode number, from the first that is not reserved on
}

// Node is one inode of the tree given to Finish. The same *Node under several
// names is a hard link. A Node may be used for one Finish only.
type Node struct {
	Mode                uint32 // st_mode: type and permission bits
	UID, GID            uint32
	Atime, Mtime, Ctime time.Time // to the nanosecond, clamped to 1901..2446
	Major, Minor        uint32    // devices: below 4096 and 1048576
	Symlink             []byte    // symlinks: 1..MaxSymlink bytes
	Data                Data      // regular files
	// Xattrs maps full names ("user.x", "security.capability") to values;
	// POSIX ACLs have the form that getxattr(2) returns.
	Xattrs   map[string][]byte
	Children map[string]*Node // directories: by name, 1..255 bytes without '/' and NUL

	ino, links, parent uint32
}

// IsDir reports whether n is a directory.
func (n *Node) IsDir() bool { return n.Mode&modeType == modeDir }

// New fixes the layout and sets the file's length. Nothing but that is written
// before data comes or Finish is called.
func New(f File, o Options) (*Writer, error) {
	geo, err := newGeometry(o)
	if err != nil {
		return nil, err
	}
	if len(o.Label) > 16 {
		return nil, fmt.Errorf("ext4 label %q is longer than 16 bytes", o.Label)
	}
	if err := f.Truncate(o.Size); err != nil {
		return nil, fmt.Errorf("set the length of the ext4 image: %w", err)
	}
	w := &Writer{file: f, opts: o, geo: geo, seed: crc(^uint32(0), o.UUID[:]), dirs: make([]uint32, geo.groups)}
	w.next, w.runEnd = geo.freeRun(0)
	if o.Journal {
		if w.journal, err = w.allocate(journalBlocks(geo.blocks)); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Finish writes everything but file contents; root becomes the tree. The caller
// syncs and closes the file.
func (w *Writer) Finish(root *Node) error {
	if root == nil || !root.IsDir() {
		return errors.New("the root of an ext4 file system must be a directory")
	}
	if err := w.addLostFound(root); err != nil {
		return err
	}
	root.ino, root.links, root.parent = rootIno, 1, rootIno
	if err := w.number(root); err != nil {
		return err
	}
	if uint64(len(w.order))+firstIno-1 > uint64(w.geo.inodesPerGroup)*w.geo.groups {
		return fmt.Errorf("%d inodes: %w", len(w.order), ErrNoSpace)
	}
	if err := w.writeReserved(root); err != nil {
		return err
	}
	for _, n := range w.order {
		if err := w.writeNode(n); err != nil {
			return err
		}
	}
	if err := w.flushInodes(); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.releaseFreed()
	return w.writeGroups()
}

// addLostFound makes the directory that e2fsck wants, unless the tree has
// something of that name, which then is kept as it is.
func (w *Writer) addLostFound(root *Node) error {
	if _, ok := root.Children["lost+found"]; ok {
		return nil
	}
	if root.Children == nil {
		root.Children = map[string]*Node{}
	}
	t := w.opts.Time
	root.Children["lost+found"] = &Node{Mode: modeDir | 0o700, Atime: t, Mtime: t, Ctime: t}
	return nil
}

// number gives inode numbers to all below dir in tree order, so that a
// directory's inodes lie together, and counts links.
func (w *Writer) number(dir *Node) error {
	for _, name := range sortedNames(dir.Children) {
		n := dir.Children[name]
		if err := checkName(name); err != nil {
			return err
		}
		if n.ino != 0 && n.IsDir() {
			return fmt.Errorf("directory %q occurs twice in the tree", name)
		}
		n.links++
		if n.links > maxLinks {
			return fmt.Errorf("%q has more than %d hard links", name, maxLinks)
		}
		if n.ino == 0 {
			w.order = append(w.order, n)
			n.ino = uint32(len(w.order)) + firstIno - 1
		}
	}
	for _, name := range sortedNames(dir.Children) {
		if n := dir.Children[name]; n.IsDir() {
			dir.links++
			n.parent = dir.ino
			if err := w.number(n); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkName(name string) error {
	if len(name) == 0 || len(name) > 255 || name == "." || name == ".." {
		return fmt.Errorf("%.40q is not a file name", name)
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return fmt.Errorf("%.40q is not a file name", name)
		}
	}
	return nil
}

// sortedNames returns the names in byte order: the order of everything here.
func sortedNames(m map[string]*Node) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
