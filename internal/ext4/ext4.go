// Package ext4 writes an ext4 file system directly into a sparse file, without root, a mount or a
// helper program. The layout depends only on the options, so file data can be written as soon as it
// is known. The tree and all tables come last. The same options and calls give the same bytes.
//
// Format: Documentation/filesystems/ext4 of the Linux kernel. The package must not know where the
// tree comes from.
package ext4

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// File is the file that a Writer writes to, such as an *os.File. It must be empty.
type File interface {
	io.WriterAt
	Truncate(size int64) error
}

// Puncher is an optional interface of a File. PunchHole returns a range, in bytes, to the host's
// file system, and makes it read as zeros.
type Puncher interface {
	PunchHole(offset, length int64) error
}

// Options describe a file system. Only Size is required.
type Options struct {
	Size     int64  // bytes; a multiple of 4096, 64 MiB to 16 TiB
	Inodes   uint32 // minimum; 0 means one for each 16 KiB
	UUID     [16]byte
	HashSeed [16]byte
	Label    string // at most 16 bytes
	Time     time.Time
	Journal  bool // needed if the file system will be written to
}

// Limits of Options.Size in bytes.
const (
	MinSize = 64 << 20
	MaxSize = 16 << 40
)

// ErrNoSpace means that the file system is full.
var ErrNoSpace = errors.New("the ext4 file system is full")

const (
	blockSize      = 4096
	blocksPerGroup = 8 * blockSize // one bitmap block's bits
	inodeSize      = 256
	inodesPerBlock = blockSize / inodeSize
	descSize       = 64
	groupsPerFlex  = 16
	// maxInodesPerGroup is chosen so that the tables of a flex group fit into its first group.
	maxInodesPerGroup = 16384
	rootInode         = 2
	resizeInode       = 7
	journalInode      = 8
	firstInode        = 11
)

// Writer writes one file system. It is not safe for concurrent use, except for its areas, each of
// which is used by one goroutine. After an error the file is worthless.
type Writer struct {
	f    File
	opts Options
	seed uint32 // of all metadata checksums

	hashSeed [4]uint32 // for the hashes of names in directories

	blocks         uint64 // of the file system
	groups         uint32
	inodesPerGroup uint32
	tableBlocks    uint32 // of one group's inode table
	gdtBlocks      uint32
	reserved       uint32 // blocks kept after the group descriptors for later ones

	group  []groupState
	next   uint32 // group in which the next block that belongs to no area is searched
	areas  []*Area
	common uint32 // first group that belongs to no area
	freed  []extent

	lastInode uint32            // the highest number in use
	values    [][inodeSize]byte // inodes of attributes' values; the last one is lastInode
}

// groupState describes a group while blocks are allocated. The metadata of a group is at its start,
// so the free blocks are one run, except for blocks that were freed.
type groupState struct {
	cursor uint32 // first block that was never allocated, relative to the group
	end    uint32 // blocks of the group
	bitmap []byte // nil while only metadata is used
	free   uint32 // blocks
}

// New lays out a file system in f and sets the final size of f.
func New(f File, opts Options) (*Writer, error) {
	switch {
	case opts.Size < MinSize || opts.Size > MaxSize || opts.Size%blockSize != 0:
		return nil, fmt.Errorf("ext4 size %d is not a multiple of %d between %d and %d", opts.Size, blockSize, int64(MinSize),
			int64(MaxSize))
	case len(opts.Label) > 16:
		return nil, fmt.Errorf("ext4 label %q is longer than 16 bytes", opts.Label)
	}
	w := &Writer{f: f, opts: opts, seed: checksum(^uint32(0), opts.UUID[:]), hashSeed: newHashSeed(opts.HashSeed)}
	w.layOut()
	if err := f.Truncate(opts.Size); err != nil {
		return nil, err
	}
	return w, nil
}

// layOut computes everything that depends only on the options.
func (w *Writer) layOut() {
	w.blocks = uint64(w.opts.Size) / blockSize
	w.groups = uint32((w.blocks + blocksPerGroup - 1) / blocksPerGroup)
	inodes := max(uint64(w.opts.Inodes)+firstInode, uint64(w.opts.Size)/16384)
	perGroup := (inodes + uint64(w.groups) - 1) / uint64(w.groups)
	perGroup = min(max((perGroup+inodesPerBlock-1)/inodesPerBlock*inodesPerBlock, 64), maxInodesPerGroup)
	w.inodesPerGroup = uint32(perGroup)
	w.tableBlocks = w.inodesPerGroup / inodesPerBlock
	w.gdtBlocks = (w.groups*descSize + blockSize - 1) / blockSize
	w.reserved = w.reserve()
	// As in mke2fs, a last group that is too small for its own metadata is left out.
	if last := w.groups - 1; last > 0 && w.groupBlocks(last) < w.metadataBlocks(last)+64 {
		w.blocks = uint64(last) * blocksPerGroup
		w.groups--
		w.gdtBlocks = (w.groups*descSize + blockSize - 1) / blockSize
		w.reserved = w.reserve()
	}
	w.group = make([]groupState, w.groups)
	for g := range w.group {
		meta, end := w.metadataBlocks(uint32(g)), w.groupBlocks(uint32(g))
		w.group[g] = groupState{cursor: meta, end: end, free: end - meta}
	}
}

func (w *Writer) groupBlocks(g uint32) uint32 {
	return uint32(min(w.blocks-uint64(g)*blocksPerGroup, blocksPerGroup))
}

// flexMembers returns how many groups keep their bitmaps and tables in group g.
func (w *Writer) flexMembers(g uint32) uint32 {
	if g%groupsPerFlex != 0 {
		return 0
	}
	return min(groupsPerFlex, w.groups-g)
}

// metadataBlocks returns how many blocks at the start of group g contain metadata.
func (w *Writer) metadataBlocks(g uint32) uint32 {
	return w.superBlocks(g) + w.flexMembers(g)*(2+w.tableBlocks)
}

// superBlocks returns how many blocks of group g contain the superblock and descriptors. These are
// in group 0 and in the groups with backups.
func (w *Writer) superBlocks(g uint32) uint32 {
	if hasSuper(g) {
		return 1 + w.gdtBlocks + w.reserved
	}
	return 0
}

// hasSuper reports whether a group has a superblock. By sparse_super these are groups 0, 1 and the
// powers of 3, 5 and 7.
func hasSuper(g uint32) bool {
	if g <= 1 {
		return true
	}
	for _, base := range []uint64{3, 5, 7} {
		p := base
		for p < uint64(g) {
			p *= base
		}
		if p == uint64(g) {
			return true
		}
	}
	return false
}

// The places of the metadata of group g. They are in the first group of its flex group: first all
// block bitmaps, then all inode bitmaps, then all tables.
func (w *Writer) blockBitmapAt(g uint32) uint64 {
	first := g - g%groupsPerFlex
	return uint64(first)*blocksPerGroup + uint64(w.superBlocks(first)) + uint64(g-first)
}

func (w *Writer) inodeBitmapAt(g uint32) uint64 {
	first := g - g%groupsPerFlex
	return w.blockBitmapAt(first) + uint64(w.flexMembers(first)) + uint64(g-first)
}

func (w *Writer) tableAt(g uint32) uint64 {
	first := g - g%groupsPerFlex
	return w.inodeBitmapAt(first) + uint64(w.flexMembers(first)) + uint64(g-first)*uint64(w.tableBlocks)
}

// allocate returns a run of at most want free blocks, from any group.
func (w *Writer) allocate(want uint32) (start uint64, n uint32, err error) {
	for ; w.next < w.groups; w.next++ {
		if start, n = w.take(w.next, want); n > 0 {
			return start, n, nil
		}
	}
	return 0, 0, ErrNoSpace
}

// take returns a run of at most want free blocks of one group. n is 0 if the group is full.
func (w *Writer) take(group, want uint32) (start uint64, n uint32) {
	g := &w.group[group]
	n = min(want, g.end-g.cursor)
	if n == 0 {
		return 0, 0
	}
	start = uint64(group)*blocksPerGroup + uint64(g.cursor)
	w.mark(group, g.cursor, n, true)
	g.cursor += n
	return start, n
}

// mark sets or clears bits of a group's block bitmap and updates the counts.
func (w *Writer) mark(group, from, n uint32, used bool) {
	g := &w.group[group]
	if g.bitmap == nil {
		g.bitmap = w.freshBitmap(group)
	}
	if used {
		setBits(g.bitmap, from, n)
		g.free -= n
		return
	}
	for i := from; i < from+n; i++ {
		g.bitmap[i/8] &^= 1 << (i % 8)
	}
	g.free += n
}

// freshBitmap returns a bitmap in which the metadata and the blocks after the end are marked as
// used.
func (w *Writer) freshBitmap(group uint32) []byte {
	b := make([]byte, blockSize)
	setBits(b, 0, w.metadataBlocks(group))
	end := w.groupBlocks(group)
	setBits(b, end, blocksPerGroup-end)
	return b
}

func setBits(b []byte, from, n uint32) {
	for i := from; i < from+n; {
		if i%8 == 0 && from+n-i >= 8 {
			b[i/8] = 0xff
			i += 8
			continue
		}
		b[i/8] |= 1 << (i % 8)
		i++
	}
}

func (w *Writer) writeBlocks(p []byte, block uint64) error {
	_, err := w.f.WriteAt(p, int64(block)*blockSize)
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum returns the crc32c without the inversions of the standard library, as the kernel chains
// it.
func checksum(crc uint32, p []byte) uint32 { return ^crc32.Update(^crc, castagnoli, p) }
