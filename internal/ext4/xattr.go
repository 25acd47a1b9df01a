package ext4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
	"strings"
	"syscall"
)

const (
	xattrMagic       = 0xEA020000
	xattrEntry       = 16 // bytes before the name
	xattrBlockHeader = 32
	xattrInodeStart  = 128 + extraSize
)

type xattr struct {
	index byte
	name  string // without the prefix
	value []byte
	inode uint32 // inode of the value; 0: the value is stored beside the entry
	sum   uint32 // checksum of a value in an inode
}

// MaxXattr is the largest size of an attribute's value in bytes, the limit of the system calls
// (xattr(7)).
const MaxXattr = 64 << 10

func (x xattr) size() int {
	n := (xattrEntry + len(x.name) + 3) &^ 3
	if x.inode == 0 {
		n += (len(x.value) + 3) &^ 3
	}
	return n
}

// xattrPrefixes are the namespaces for which ext4 has numbers (attributes.rst).
var xattrPrefixes = []struct {
	prefix string
	index  byte
	whole  bool
}{
	{"user.", 1, false},
	{"system.posix_acl_access", 2, true},
	{"system.posix_acl_default", 3, true},
	{"trusted.", 4, false},
	{"security.", 6, false},
	{"system.", 7, false},
}

// ValidXattr reports whether ext4 can store an attribute of this name.
func ValidXattr(name string) bool {
	_, rest, ok := splitXattr(name)
	return ok && len(rest) <= 255
}

func splitXattr(name string) (index byte, rest string, ok bool) {
	for _, p := range xattrPrefixes {
		if p.whole && name == p.prefix {
			return p.index, "", true
		}
		if rest, found := strings.CutPrefix(name, p.prefix); found && !p.whole && rest != "" {
			return p.index, rest, true
		}
	}
	return 0, "", false
}

// writeXattrs puts attributes into the inode's free space and the rest into a block of their own.
// It returns the number of that block, or 0 if there is none. Values that do not fit into the block
// get an inode each, the longest first. Their blocks count as the node's own (attributes.rst) and
// are included in blocks.
func (w *Writer) writeXattrs(n *Node, raw []byte) (at, blocks uint64, err error) {
	if len(n.Xattrs) == 0 {
		return 0, 0, nil
	}
	list, err := convertXattrs(n.Xattrs)
	if err != nil {
		return 0, 0, err
	}
	room := inodeSize - xattrInodeStart - 4 - 4 // magic number and end mark
	var inside, outside []xattr
	for _, x := range list {
		if x.size() <= room {
			inside = append(inside, x)
			room -= x.size()
		} else {
			outside = append(outside, x)
		}
	}
	if len(inside) > 0 {
		binary.LittleEndian.PutUint32(raw[xattrInodeStart:], xattrMagic)
		body := raw[xattrInodeStart+4 : inodeSize]
		putXattrs(body, inside, 0)
	}
	if len(outside) == 0 {
		return 0, 0, nil
	}
	total := xattrBlockHeader + 4
	for _, x := range outside {
		total += x.size()
	}
	for total > blockSize {
		x := longest(outside)
		if x == nil {
			return 0, 0, fmt.Errorf("extended attributes of %d bytes, values apart, do not fit into one block", total)
		}
		total -= x.size()
		if err := w.writeValue(x); err != nil {
			return 0, 0, err
		}
		total += x.size()
		blocks += uint64(len(x.value)+blockSize-1) / blockSize
	}
	at, err = w.writeXattrBlock(outside)
	return at, blocks + 1, err
}

// longest returns the attribute with the longest value that is stored beside its entry, or nil.
func longest(list []xattr) *xattr {
	var found *xattr
	for i := range list {
		if x := &list[i]; x.inode == 0 && len(x.value) > 0 && (found == nil || len(x.value) > len(found.value)) {
			found = x
		}
	}
	return found
}

// writeValue gives a value its own inode. The inode's version is one reference, and its atime is
// the value's checksum (attributes.rst, ea_inode).
func (w *Writer) writeValue(x *xattr) error {
	if uint64(w.lastInode) >= uint64(w.inodesPerGroup)*uint64(w.groups) {
		return fmt.Errorf("no inode left for an extended attribute: %w", ErrNoSpace)
	}
	w.lastInode++
	x.inode, x.sum = w.lastInode, checksum(w.seed, x.value)
	d, err := w.writeWhole(x.value)
	if err != nil {
		return err
	}
	seed := w.inodeSeed(x.inode)
	root, extra, err := w.extentTree(d.extents, seed)
	if err != nil {
		return err
	}
	var raw [inodeSize]byte
	putInode(raw[:], &Node{Mode: syscall.S_IFREG | 0o600}, 1, d.Size, d.blocks()+extra, 0)
	le := binary.LittleEndian
	le.PutUint32(raw[0x08:], x.sum)
	le.PutUint32(raw[0x20:], flagExtents|flagEAInode)
	le.PutUint32(raw[0x24:], 1)
	copy(raw[0x28:], root[:])
	sealInode(raw[:], seed)
	w.values = append(w.values, raw)
	return nil
}

func (w *Writer) writeXattrBlock(list []xattr) (uint64, error) {
	at, _, err := w.allocate(1)
	if err != nil {
		return 0, err
	}
	block := make([]byte, blockSize)
	le := binary.LittleEndian
	le.PutUint32(block, xattrMagic)
	le.PutUint32(block[4:], 1) // references
	le.PutUint32(block[8:], 1) // blocks
	le.PutUint32(block[12:], putXattrs(block, list, xattrBlockHeader))
	var number [8]byte
	le.PutUint64(number[:], at)
	le.PutUint32(block[16:], checksum(checksum(w.seed, number[:]), block))
	return at, w.writeBlocks(block, at)
}

// putXattrs writes entries from start on, and values from the end of area backwards. Offsets count
// from the start of area. It returns the hash of all entries.
func putXattrs(area []byte, list []xattr, start int) uint32 {
	le := binary.LittleEndian
	at, end := start, len(area)
	var all uint32
	for _, x := range list {
		e := area[at:]
		e[0], e[1] = byte(len(x.name)), x.index
		le.PutUint32(e[4:], x.inode)
		if x.inode == 0 && len(x.value) > 0 {
			end -= (len(x.value) + 3) &^ 3
			copy(area[end:], x.value)
			le.PutUint16(e[2:], uint16(end))
		}
		le.PutUint32(e[8:], uint32(len(x.value)))
		hash := x.hash()
		le.PutUint32(e[12:], hash)
		copy(e[xattrEntry:], x.name)
		at += (xattrEntry + len(x.name) + 3) &^ 3
		all = all<<16 ^ all>>16 ^ hash
	}
	return all
}

// hash returns ext4_xattr_hash_entry: a hash of the name's bytes and then of the value's words, or
// of the checksum if the value is in an inode.
func (x xattr) hash() uint32 {
	var h uint32
	for i := range len(x.name) {
		h = h<<5 ^ h>>27 ^ uint32(x.name[i])
	}
	if x.inode != 0 {
		return h<<16 ^ h>>16 ^ x.sum
	}
	padded := make([]byte, (len(x.value)+3)&^3)
	copy(padded, x.value)
	for ; len(padded) > 0; padded = padded[4:] {
		h = h<<16 ^ h>>16 ^ binary.LittleEndian.Uint32(padded)
	}
	return h
}

// convertXattrs converts attributes to ext4's form and sorts them in its order: by index, by length
// of the name, by name. The kernel stops its search where the order is broken.
func convertXattrs(attrs []Xattr) ([]xattr, error) {
	list := make([]xattr, 0, len(attrs))
	for _, x := range attrs {
		name, value := x.Name, x.Value
		index, rest, ok := splitXattr(name)
		if !ok || len(rest) > 255 {
			return nil, fmt.Errorf("ext4 has no extended attribute %.300q", name)
		}
		if len(value) > MaxXattr {
			return nil, fmt.Errorf("the extended attribute %.300q has %d bytes, but at most %d can be read", name, len(value),
				MaxXattr)
		}
		if index == 2 || index == 3 {
			var err error
			if value, err = convertACL(value); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		list = append(list, xattr{index: index, name: rest, value: value})
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i], list[j]
		if a.index != b.index {
			return a.index < b.index
		}
		if len(a.name) != len(b.name) {
			return len(a.name) < len(b.name)
		}
		return a.name < b.name
	})
	return list, nil
}

// convertACL converts the system call's form of an ACL (version 2, an id in every entry) to ext4's
// form (version 1, ids only for named users and groups).
func convertACL(v []byte) ([]byte, error) {
	le := binary.LittleEndian
	if len(v) < 4 || le.Uint32(v) != 2 || (len(v)-4)%8 != 0 {
		return nil, errors.New("no POSIX ACL")
	}
	var out bytes.Buffer
	binary.Write(&out, le, uint32(1))
	for e := v[4:]; len(e) > 0; e = e[8:] {
		out.Write(e[:4])
		const user, group = 2, 8
		switch tag := le.Uint16(e); tag {
		case user, group:
			out.Write(e[4:8])
		case 1, 4, 0x10, 0x20:
		default:
			return nil, fmt.Errorf("POSIX ACL with an unknown tag %d", tag)
		}
	}
	return out.Bytes(), nil
}
