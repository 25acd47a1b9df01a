package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
	"strings"
	"syscall"
	"time"
)

// Node is one inode. A hard link is the same *Node at several places.
type Node struct {
	Mode         uint32 // st_mode: type and permissions
	UID, GID     uint32
	Major, Minor uint32           // of devices
	Layer, Names int32            // free for the caller
	Mtime        time.Time        // for all times; clamped to 1901..2446
	Target       string           // of symlinks: 1 to 4095 bytes, no zero byte
	Data         Data             // of regular files
	Xattrs       []Xattr          // in any order, each name once
	Children     map[string]*Node // of directories; names are raw bytes

	number uint32
	links  uint32
	parent *Node
}

// Xattr is an extended attribute. Name includes the namespace (xattr(7)).
type Xattr struct {
	Name  string
	Value []byte
}

const (
	maxName   = 255
	maxTarget = blockSize - 1
	maxLinks  = 65000
	fastLink  = 60 // a shorter target is stored in the inode

	flagIndex   = 0x1000 // a directory with a hash tree
	flagExtents = 0x80000
	flagEAInode = 0x200000 // holds the value of an extended attribute
)

// number assigns an inode number to every node of the tree, counts links and checks the tree. It
// returns the nodes in the order of their numbers.
func (w *Writer) number(root *Node) ([]*Node, error) {
	if root.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return nil, errors.New("the root is not a directory")
	}
	limit := uint64(w.inodesPerGroup) * uint64(w.groups)
	next := uint32(firstInode)
	root.number, root.parent, root.links = rootInode, root, 2
	nodes := []*Node{root}
	for i := 0; i < len(nodes); i++ {
		dir := nodes[i]
		if dir.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			continue
		}
		for _, name := range sortedNames(dir.Children) {
			n := dir.Children[name]
			if err := checkName(name); err != nil {
				return nil, err
			}
			isDir := n.Mode&syscall.S_IFMT == syscall.S_IFDIR
			switch {
			case n.number != 0 && isDir:
				return nil, fmt.Errorf("directory %q has two names", name)
			case n.number != 0:
				if n.links++; n.links > maxLinks {
					return nil, fmt.Errorf("%q has more than %d hard links", name, maxLinks)
				}
				continue
			}
			n.number, n.parent, n.links = next, dir, 1
			if isDir {
				n.links = 2
				dir.links++
			}
			nodes = append(nodes, n)
			if next++; uint64(next) > limit+1 {
				return nil, fmt.Errorf("more than %d inodes: %w", limit, ErrNoSpace)
			}
		}
	}
	w.lastInode = next - 1
	return nodes, nil
}

func sortedNames(children map[string]*Node) []string {
	names := make([]string, 0, len(children))
	for n := range children {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

func checkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > maxName || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%.300q is not a file name", name)
	}
	return nil
}

func (w *Writer) inodeSeed(number uint32) uint32 {
	var b [8]byte // number, then the generation, which is 0
	binary.LittleEndian.PutUint32(b[:], number)
	return checksum(w.seed, b[:])
}

// inode writes the data of a node that is stored outside its inode, and returns the inode.
func (w *Writer) inode(n *Node) ([inodeSize]byte, error) {
	var raw [inodeSize]byte
	seed := w.inodeSeed(n.number)
	size, blocks, err := w.content(n, raw[:], seed)
	if err != nil {
		return raw, err
	}
	acl, more, err := w.writeXattrs(n, raw[:])
	if err != nil {
		return raw, err
	}
	blocks += more
	links := n.links
	if n.Mode&syscall.S_IFMT == syscall.S_IFDIR && links > maxLinks {
		links = 1 // dir_nlink: not counted
	}
	putInode(raw[:], n, links, size, blocks, acl)
	sealInode(raw[:], seed)
	return raw, nil
}

// content writes the content of a node. It puts into i_block where the content is, or a short
// content itself. It returns i_size and the number of blocks.
func (w *Writer) content(n *Node, raw []byte, seed uint32) (size int64, blocks uint64, err error) {
	d := n.Data
	flags := uint32(flagExtents)
	switch n.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
	case syscall.S_IFDIR:
		var indexed bool
		if d, indexed, err = w.writeDirectory(n, seed); indexed {
			flags |= flagIndex
		}
	case syscall.S_IFLNK:
		if len(n.Target) == 0 || len(n.Target) > maxTarget {
			return 0, 0, fmt.Errorf("a symlink's target has %d bytes, but must have 1 to %d", len(n.Target), maxTarget)
		}
		if strings.Contains(n.Target, "\x00") {
			return 0, 0, errors.New("a symlink's target has a zero byte")
		}
		if len(n.Target) < fastLink {
			copy(raw[0x28:], n.Target)
			return int64(len(n.Target)), 0, nil
		}
		d, err = w.writeWhole([]byte(n.Target))
	case syscall.S_IFCHR, syscall.S_IFBLK:
		putDevice(raw[0x28:], n.Major, n.Minor)
		return 0, 0, nil
	case syscall.S_IFIFO, syscall.S_IFSOCK:
		return 0, 0, nil
	default:
		return 0, 0, fmt.Errorf("mode %o has no file type", n.Mode)
	}
	if err != nil {
		return 0, 0, err
	}
	root, extra, err := w.extentTree(d.extents, seed)
	if err != nil {
		return 0, 0, err
	}
	copy(raw[0x28:], root[:])
	binary.LittleEndian.PutUint32(raw[0x20:], flags)
	return d.Size, d.blocks() + extra, nil
}

// putInode fills in the fixed fields.
func putInode(raw []byte, n *Node, links uint32, size int64, blocks, acl uint64) {
	le := binary.LittleEndian
	le.PutUint16(raw[0x00:], uint16(n.Mode))
	le.PutUint16(raw[0x02:], uint16(n.UID))
	le.PutUint32(raw[0x04:], uint32(size))
	le.PutUint16(raw[0x18:], uint16(n.GID))
	le.PutUint16(raw[0x1A:], uint16(links))
	sectors := blocks * (blockSize / 512)
	le.PutUint32(raw[0x1C:], uint32(sectors))
	le.PutUint16(raw[0x74:], uint16(sectors>>32))
	le.PutUint32(raw[0x68:], uint32(acl))
	le.PutUint16(raw[0x76:], uint16(acl>>32))
	le.PutUint32(raw[0x6C:], uint32(size>>32))
	le.PutUint16(raw[0x78:], uint16(n.UID>>16))
	le.PutUint16(raw[0x7A:], uint16(n.GID>>16))
	le.PutUint16(raw[0x80:], extraSize)
	putTime(raw, 0x08, 0x8C, n.Mtime)
	putTime(raw, 0x0C, 0x84, n.Mtime)
	putTime(raw, 0x10, 0x88, n.Mtime)
	putTime(raw, 0x90, 0x94, n.Mtime)
}

// extraSize is i_extra_isize: the size of the fields after the first 128 bytes.
const extraSize = 32

// sealInode sets the checksum over everything else.
func sealInode(raw []byte, seed uint32) {
	sum := checksum(seed, raw)
	binary.LittleEndian.PutUint16(raw[0x7C:], uint16(sum))
	binary.LittleEndian.PutUint16(raw[0x82:], uint16(sum>>16))
}

// The range of ext4's 34-bit seconds.
const (
	minSeconds = -1 << 31
	maxSeconds = 0x37fffffff
)

// putTime writes the seconds and, in the extra field, two epoch bits and 30 bits of nanoseconds.
func putTime(raw []byte, at, extraAt int, t time.Time) {
	var sec, nsec int64
	if !t.IsZero() {
		sec, nsec = t.Unix(), int64(t.Nanosecond())
	}
	if sec < minSeconds {
		sec, nsec = minSeconds, 0
	} else if sec > maxSeconds {
		sec, nsec = maxSeconds, 0
	}
	low := int32(sec)
	epoch := uint32((sec-int64(low))>>32) & 3
	binary.LittleEndian.PutUint32(raw[at:], uint32(low))
	binary.LittleEndian.PutUint32(raw[extraAt:], epoch|uint32(nsec)<<2)
}

// putDevice uses the old encoding if the numbers fit, as the kernel does.
func putDevice(b []byte, major, minor uint32) {
	if major < 256 && minor < 256 {
		binary.LittleEndian.PutUint32(b, major<<8|minor)
		return
	}
	binary.LittleEndian.PutUint32(b[4:], minor&0xff|major<<8|(minor&^0xff)<<12)
}

// writeWhole writes p to new blocks, including zeros.
func (w *Writer) writeWhole(p []byte) (Data, error) {
	d := Data{Size: int64(len(p))}
	padded := make([]byte, (len(p)+blockSize-1)/blockSize*blockSize)
	copy(padded, p)
	logical := uint32(0)
	for len(padded) > 0 {
		start, n, err := w.allocate(uint32(min(len(padded)/blockSize, maxExtent)))
		if err != nil {
			return d, err
		}
		if err := w.writeBlocks(padded[:int(n)*blockSize], start); err != nil {
			return d, err
		}
		d.extents = appendExtent(d.extents, extent{logical, n, start})
		padded, logical = padded[int(n)*blockSize:], logical+n
	}
	return d, nil
}
