package ext4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
	"strings"
)

const (
	xattrMagic       = 0xEA020000
	xattrEntry       = 16 // bytes before the name
	xattrBlockHeader = 32
	xattrInodeStart  = 128 + extraSize
)

type xattr struct {
	index byte
	name  string // behind the prefix
	value []byte
}

func (x xattr) size() int { return (xattrEntry+len(x.name)+3)&^3 + (len(x.value)+3)&^3 }

// xattrPrefixes are the namespaces ext4 has numbers for (attributes.rst).
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

// ValidXattr reports whether ext4 can hold an attribute of this name.
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

// writeXattrs puts attributes into the inode's free space and the rest into a
// block of their own, whose number it returns (0: none was needed).
func (w *Writer) writeXattrs(n *Node, raw []byte) (uint64, error) {
	if len(n.Xattrs) == 0 {
		return 0, nil
	}
	list, err := convertXattrs(n.Xattrs)
	if err != nil {
		return 0, err
	}
	room := inodeSize - xattrInodeStart - 4 - 4 // magic, end mark
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
		return 0, nil
	}
	total := xattrBlockHeader + 4
	for _, x := range outside {
		total += x.size()
	}
	if total > blockSize {
		return 0, fmt.Errorf("extended attributes of %d bytes do not fit into one block", total)
	}
	return w.writeXattrBlock(outside)
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

// putXattrs writes entries from start on and values from the end of area back.
// Offsets count from the start of area. It returns the hash of all entries.
func putXattrs(area []byte, list []xattr, start int) uint32 {
	le := binary.LittleEndian
	at, end := start, len(area)
	var all uint32
	for _, x := range list {
		end -= (len(x.value) + 3) &^ 3
		copy(area[end:], x.value)
		e := area[at:]
		e[0], e[1] = byte(len(x.name)), x.index
		if len(x.value) > 0 {
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

// hash is ext4_xattr_hash_entry: over the name's bytes, then the value's words.
func (x xattr) hash() uint32 {
	var h uint32
	for i := range len(x.name) {
		h = h<<5 ^ h>>27 ^ uint32(x.name[i])
	}
	padded := make([]byte, (len(x.value)+3)&^3)
	copy(padded, x.value)
	for ; len(padded) > 0; padded = padded[4:] {
		h = h<<16 ^ h>>16 ^ binary.LittleEndian.Uint32(padded)
	}
	return h
}

// convertXattrs brings attributes into ext4's form and order: by index, length
// of the name, name. The kernel stops searching where the order is broken.
func convertXattrs(attrs map[string][]byte) ([]xattr, error) {
	var list []xattr
	for name, value := range attrs {
		index, rest, ok := splitXattr(name)
		if !ok || len(rest) > 255 {
			return nil, fmt.Errorf("ext4 has no extended attribute %.300q", name)
		}
		if index == 2 || index == 3 {
			var err error
			if value, err = convertACL(value); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		list = append(list, xattr{index, rest, value})
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

// convertACL turns the system call's form of an ACL (version 2, an id in every
// entry) into ext4's (version 1, ids only for named users and groups).
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
