package ext4

import (
	"encoding/binary"
	"fmt"
	"sort"
	"syscall"
)

const (
	direntHeader = 8
	direntTail   = 12 // the checksum, in the form of an entry

	rootEntries = (blockSize - rootHeader - indexTail) / indexEntry
	nodeEntries = (blockSize - nodeHeader - indexTail) / indexEntry
	rootHeader  = 32 // ".", "..", dx_root_info
	nodeHeader  = 8  // an empty entry that spans the block
	indexEntry  = 8
	indexTail   = 8
)

// dirent is one name of a directory.
type dirent struct {
	name string
	node *Node
	hash uint32
}

func (e dirent) size() int { return (direntHeader + len(e.name) + 3) &^ 3 }

// writeDirectory writes a directory's blocks: one linear block if that is enough, otherwise a hash
// tree (directory.rst, "Hash Tree Directories").
func (w *Writer) writeDirectory(n *Node, seed uint32) (d Data, indexed bool, err error) {
	entries := []dirent{{name: ".", node: n}, {name: "..", node: n.parent}}
	for _, name := range sortedNames(n.Children) {
		entries = append(entries, dirent{name: name, node: n.Children[name]})
	}
	size := 0
	for _, e := range entries {
		size += e.size()
	}
	var blocks []byte
	if indexed = size > blockSize-direntTail; indexed {
		blocks, err = w.indexed(n, entries[2:], seed)
	} else {
		blocks, _ = packEntries(entries, seed)
	}
	if err == nil {
		d, err = w.writeWhole(blocks)
	}
	return d, indexed, err
}

// packEntries puts entries into linear blocks, each with its checksum. It also returns the index of
// each block's first entry.
func packEntries(entries []dirent, seed uint32) (blocks []byte, first []int) {
	var block []byte
	at, last := 0, 0
	flush := func() {
		binary.LittleEndian.PutUint16(block[last+4:], uint16(blockSize-direntTail-last))
		tail := block[blockSize-direntTail:]
		binary.LittleEndian.PutUint16(tail[4:], direntTail)
		tail[7] = 0xDE
		binary.LittleEndian.PutUint32(tail[8:], checksum(seed, block[:blockSize-direntTail]))
	}
	for i, e := range entries {
		if block == nil || at+e.size() > blockSize-direntTail {
			if block != nil {
				flush()
			}
			blocks = append(blocks, make([]byte, blockSize)...)
			block, at = blocks[len(blocks)-blockSize:], 0
			first = append(first, i)
		}
		putEntry(block[at:], e.node.number, e.size(), e.name, fileType(e.node.Mode))
		at, last = at+e.size(), at
	}
	flush()
	return blocks, first
}

func putEntry(b []byte, inode uint32, length int, name string, kind byte) {
	binary.LittleEndian.PutUint32(b, inode)
	binary.LittleEndian.PutUint16(b[4:], uint16(length))
	b[6], b[7] = byte(len(name)), kind
	copy(b[direntHeader:], name)
}

// branch is an entry of the hash tree: names with this hash and larger ones are below block.
type branch struct{ hash, block uint32 }

// indexed returns the blocks of a hash tree: the root, the inner nodes if there are any, and the
// leaves.
func (w *Writer) indexed(n *Node, entries []dirent, seed uint32) ([]byte, error) {
	for i := range entries {
		entries[i].hash = nameHash(w.hashSeed, entries[i].name)
	}
	sortByHash(entries)
	leaves, first := packEntries(entries, seed)
	inner := 0
	if len(first) > rootEntries {
		inner = (len(first) + nodeEntries - 1) / nodeEntries
	}
	if inner > rootEntries {
		return nil, fmt.Errorf("a directory with %d names is too large", len(entries))
	}
	level := make([]branch, len(first))
	for i, f := range first {
		level[i] = branch{entries[f].hash, uint32(1 + inner + i)}
		if f > 0 && entries[f-1].hash == entries[f].hash {
			level[i].hash |= 1 // a chain of equal hashes continues here
		}
	}
	out := make([]byte, (1+inner)*blockSize, (1+inner)*blockSize+len(leaves))
	if inner > 0 {
		parents := make([]branch, inner)
		for i := range parents {
			part := level[i*nodeEntries : min((i+1)*nodeEntries, len(level))]
			node := out[(1+i)*blockSize:][:blockSize]
			putEntry(node, 0, blockSize, "", 0)
			putIndex(node, nodeHeader, nodeEntries, part, seed)
			parents[i] = branch{part[0].hash, uint32(1 + i)}
		}
		level = parents
	}
	root := out[:blockSize]
	putEntry(root, n.number, 12, ".", fileType(n.Mode))
	putEntry(root[12:], n.parent.number, blockSize-12, "..", fileType(n.Mode))
	root[0x1C], root[0x1D] = hashHalfMD4, 8 // the length of the info itself
	if inner > 0 {
		root[0x1E] = 1
	}
	putIndex(root, rootHeader, rootEntries, level, seed)
	return append(out, leaves...), nil
}

func sortByHash(entries []dirent) {
	sort.SliceStable(entries, func(i, j int) bool { return entries[i].hash < entries[j].hash })
}

// putIndex writes count and limit, the entries and the checksum of a tree block. The first entry
// has no hash: it covers all names below the second entry.
func putIndex(block []byte, header, limit int, level []branch, seed uint32) {
	le := binary.LittleEndian
	for i, e := range level {
		le.PutUint32(block[header+i*indexEntry:], e.hash)
		le.PutUint32(block[header+i*indexEntry+4:], e.block)
	}
	le.PutUint16(block[header:], uint16(limit))
	le.PutUint16(block[header+2:], uint16(len(level)))
	sum := checksum(seed, block[:header+len(level)*indexEntry])
	sum = checksum(sum, make([]byte, indexTail)) // the tail, still without the checksum
	le.PutUint32(block[header+limit*indexEntry+4:], sum)
}

func fileType(mode uint32) byte {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		return 1
	case syscall.S_IFDIR:
		return 2
	case syscall.S_IFCHR:
		return 3
	case syscall.S_IFBLK:
		return 4
	case syscall.S_IFIFO:
		return 5
	case syscall.S_IFSOCK:
		return 6
	case syscall.S_IFLNK:
		return 7
	}
	return 0
}
