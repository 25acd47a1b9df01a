package ext4

import (
	"encoding/binary"
	"syscall"
)

// Feature bits (super.rst).
const (
	compatJournal  = 0x4
	compatExtAttr  = 0x8
	compatResize   = 0x10
	compatDirIndex = 0x20

	incompatFiletype = 0x2
	incompatExtents  = 0x40
	incompat64Bit    = 0x80
	incompatFlexBG   = 0x200
	incompatEAInode  = 0x400

	roSparseSuper  = 0x1
	roLargeFile    = 0x2
	roHugeFile     = 0x8
	roDirNlink     = 0x20
	roExtraIsize   = 0x40
	roMetadataCsum = 0x400

	groupInodeUninit = 0x1
	groupBlockUninit = 0x2
	groupZeroed      = 0x4
)

// Finish writes the tree and all tables. The Writer must not be used afterwards.
func (w *Writer) Finish(root *Node) error {
	for _, a := range w.areas {
		if err := a.Close(); err != nil {
			return err
		}
	}
	if err := w.punch(); err != nil {
		return err
	}
	w.next = 0
	nodes, err := w.number(root)
	if err != nil {
		return err
	}
	table := newInodeTable(w)
	if w.reserved > 0 {
		raw, err := w.writeResizeInode()
		if err != nil {
			return err
		}
		if err := table.put(resizeInode, raw, false); err != nil {
			return err
		}
	}
	var journal [60]byte
	if w.opts.Journal {
		raw, err := w.writeJournal()
		if err != nil {
			return err
		}
		copy(journal[:], raw[0x28:])
		if err := table.put(journalInode, raw, false); err != nil {
			return err
		}
	}
	for i, n := range nodes {
		raw, err := w.inode(n)
		if err != nil {
			return err
		}
		if i == 0 { // the root's number is below the journal's; the table is in the order of blocks
			if err := table.put(rootInode, raw, true); err != nil {
				return err
			}
			continue
		}
		if err := table.put(n.number, raw, n.Mode&syscall.S_IFMT == syscall.S_IFDIR); err != nil {
			return err
		}
	}
	for i, raw := range w.values {
		if err := table.put(w.lastInode-uint32(len(w.values)-1-i), raw, false); err != nil {
			return err
		}
	}
	if err := table.flush(); err != nil {
		return err
	}
	return w.writeTables(table, journal)
}

// inodeTable buffers a run of blocks of the inode table. The inode numbers come almost in order.
type inodeTable struct {
	w       *Writer
	first   uint32 // number of the first inode in buf
	buf     []byte
	highest []uint32 // per group: inodes in use, counted from the group's first
	dirs    []uint32 // per group
	used    uint32   // highest number
}

const tableBuffer = 64 * blockSize

func newInodeTable(w *Writer) *inodeTable {
	return &inodeTable{
		w:       w,
		first:   1,
		highest: make([]uint32, w.groups),
		dirs:    make([]uint32, w.groups),
		used:    firstInode - 1,
	}
}

func (t *inodeTable) put(number uint32, raw [inodeSize]byte, dir bool) error {
	group, index := (number-1)/t.w.inodesPerGroup, (number-1)%t.w.inodesPerGroup
	t.highest[group] = max(t.highest[group], index+1)
	if dir {
		t.dirs[group]++
	}
	t.used = max(t.used, number)
	// A buffer never contains inodes of two groups. The tables of a flex group are adjacent, but this
	// code does not rely on that.
	if number < t.first || int(number-t.first+1)*inodeSize > tableBuffer || (t.first-1)/t.w.inodesPerGroup != group {
		if err := t.flush(); err != nil {
			return err
		}
		t.first = number - index%inodesPerBlock
	}
	at := int(number-t.first) * inodeSize
	if need := at + inodeSize; len(t.buf) < need {
		t.buf = append(t.buf, make([]byte, need-len(t.buf))...)
	}
	copy(t.buf[at:], raw[:])
	return nil
}

func (t *inodeTable) flush() error {
	if len(t.buf) == 0 {
		return nil
	}
	group, index := (t.first-1)/t.w.inodesPerGroup, (t.first-1)%t.w.inodesPerGroup
	_, err := t.w.f.WriteAt(t.buf, int64(t.w.tableAt(group))*blockSize+int64(index)*inodeSize)
	t.buf = t.buf[:0]
	return err
}

// writeTables writes bitmaps, descriptors and superblocks.
func (w *Writer) writeTables(t *inodeTable, journal [60]byte) error {
	gdt := make([]byte, int(w.gdtBlocks)*blockSize)
	var freeInodes uint64
	for g := range w.groups {
		free, err := w.writeGroup(g, t, gdt[int(g)*descSize:][:descSize])
		if err != nil {
			return err
		}
		freeInodes += uint64(free)
	}
	for g := range w.groups {
		if !hasSuper(g) {
			continue
		}
		super := w.superblock(g, freeInodes, journal)
		first := uint64(g) * blocksPerGroup
		offset := int64(first) * blockSize
		if g == 0 {
			offset = 1024
		}
		if err := w.writeBlocks(gdt, first+1); err != nil {
			return err
		}
		if _, err := w.f.WriteAt(super, offset); err != nil {
			return err
		}
	}
	return nil
}

// writeGroup writes the bitmaps of one group and fills in its descriptor. It leaves out bitmaps
// that the kernel can derive, so a large empty file system costs no more than its descriptors.
func (w *Writer) writeGroup(g uint32, t *inodeTable, desc []byte) (freeInodes uint32, err error) {
	le := binary.LittleEndian
	used := t.highest[g]
	if g == 0 {
		used = max(used, firstInode-1)
	}
	freeInodes = w.inodesPerGroup - used
	flags := uint16(groupZeroed)
	var blockSum, inodeSum uint32
	state := &w.group[g]
	if state.bitmap == nil && w.flexMembers(g) == 0 && g != w.groups-1 {
		flags |= groupBlockUninit
	} else {
		bitmap := state.bitmap
		if bitmap == nil {
			bitmap = w.freshBitmap(g)
		}
		blockSum = checksum(w.seed, bitmap)
		if err := w.writeBlocks(bitmap, w.blockBitmapAt(g)); err != nil {
			return 0, err
		}
	}
	if used == 0 {
		flags |= groupInodeUninit
	} else {
		bitmap := make([]byte, blockSize)
		setBits(bitmap, 0, used)
		setBits(bitmap, w.inodesPerGroup, blockSize*8-w.inodesPerGroup)
		inodeSum = checksum(w.seed, bitmap[:w.inodesPerGroup/8])
		if err := w.writeBlocks(bitmap, w.inodeBitmapAt(g)); err != nil {
			return 0, err
		}
	}
	split := func(lo, hi int, v uint64) {
		le.PutUint32(desc[lo:], uint32(v))
		le.PutUint32(desc[hi:], uint32(v>>32))
	}
	split16 := func(lo, hi int, v uint32) {
		le.PutUint16(desc[lo:], uint16(v))
		le.PutUint16(desc[hi:], uint16(v>>16))
	}
	split(0x00, 0x20, w.blockBitmapAt(g))
	split(0x04, 0x24, w.inodeBitmapAt(g))
	split(0x08, 0x28, w.tableAt(g))
	split16(0x0C, 0x2C, state.free)
	split16(0x0E, 0x2E, freeInodes)
	split16(0x10, 0x30, t.dirs[g])
	le.PutUint16(desc[0x12:], flags)
	split16(0x18, 0x38, blockSum)
	split16(0x1A, 0x3A, inodeSum)
	split16(0x1C, 0x32, freeInodes)
	var number [4]byte
	le.PutUint32(number[:], g)
	le.PutUint16(desc[0x1E:], uint16(checksum(checksum(w.seed, number[:]), desc)))
	return freeInodes, nil
}

// superblock returns the superblock for group g.
func (w *Writer) superblock(g uint32, freeInodes uint64, journal [60]byte) []byte {
	b := make([]byte, 1024)
	le := binary.LittleEndian
	now := uint32(0)
	if !w.opts.Time.IsZero() {
		now = uint32(w.opts.Time.Unix())
	}
	incompat := uint32(incompatFiletype | incompatExtents | incompat64Bit | incompatFlexBG)
	if len(w.values) > 0 {
		incompat |= incompatEAInode
	}
	free := w.freeBlocks()
	compat := uint32(compatExtAttr | compatDirIndex)
	if w.opts.Journal {
		compat |= compatJournal
	}
	if w.reserved > 0 {
		compat |= compatResize
	}
	for at, v := range map[int]uint32{
		0x00: w.inodesPerGroup * w.groups, 0x04: uint32(w.blocks), 0x0C: uint32(free), 0x10: uint32(freeInodes),
		0x18: 2, 0x1C: 2, 0x20: blocksPerGroup, 0x24: blocksPerGroup, 0x28: w.inodesPerGroup,
		0x30: now, 0x40: now, 0x4C: 1, 0x54: firstInode,
		0x5C: compat, 0x60: incompat,
		0x64:  roSparseSuper | roLargeFile | roHugeFile | roDirNlink | roExtraIsize | roMetadataCsum,
		0x100: 0xC, 0x108: now, 0x150: uint32(w.blocks >> 32), 0x158: uint32(free >> 32), 0x160: unsignedHash,
	} {
		le.PutUint32(b[at:], v)
	}
	for at, v := range map[int]uint16{
		0x36: 0xFFFF, 0x38: 0xEF53, 0x3A: 1, 0x3C: 1, 0x58: inodeSize, 0x5A: uint16(g), 0xCE: uint16(w.reserved),
		0xFE: descSize, 0x15C: extraSize, 0x15E: extraSize,
	} {
		le.PutUint16(b[at:], v)
	}
	copy(b[0x68:], w.opts.UUID[:])
	copy(b[0x78:0x88], w.opts.Label)
	copy(b[0xEC:], w.opts.HashSeed[:])
	b[0xFC] = hashHalfMD4
	b[0x174] = 4
	b[0x175] = 1 // crc32c
	if w.opts.Journal {
		le.PutUint32(b[0xE0:], journalInode)
		b[0xFD] = 1 // a copy of the journal's inode follows
		copy(b[0x10C:], journal[:])
		size := uint64(w.journalBlocks()) * blockSize
		le.PutUint32(b[0x148:], uint32(size>>32))
		le.PutUint32(b[0x14C:], uint32(size))
	}
	le.PutUint32(b[0x3FC:], checksum(^uint32(0), b[:0x3FC]))
	return b
}

func (w *Writer) freeBlocks() (n uint64) {
	for _, g := range w.group {
		n += uint64(g.free)
	}
	return n
}

// journalBlocks returns the size of the journal. As in mke2fs, a small file system has a small
// journal.
func (w *Writer) journalBlocks() uint32 {
	switch {
	case w.blocks < 64<<10:
		return 1024
	case w.blocks < 256<<10:
		return 4096
	}
	return 16384
}

// writeJournal allocates the journal, writes its superblock and returns its inode. All other blocks
// of the journal are zeros, as in any new file.
func (w *Writer) writeJournal() (raw [inodeSize]byte, err error) {
	d := Data{Size: int64(w.journalBlocks()) * blockSize}
	for logical := uint32(0); logical < w.journalBlocks(); {
		start, n, err := w.allocate(w.journalBlocks() - logical)
		if err != nil {
			return raw, err
		}
		d.extents = appendExtent(d.extents, extent{logical, n, start})
		logical += n
	}
	be := binary.BigEndian
	b := make([]byte, 1024) // journal.rst, version 2
	for at, v := range map[int]uint32{0x0: 0xC03B3998, 0x4: 4, 0xC: blockSize, 0x10: w.journalBlocks(), 0x14: 1, 0x18: 1,
		0x40: 1} {
		be.PutUint32(b[at:], v)
	}
	copy(b[0x30:], w.opts.UUID[:])
	if err := w.writeBlocks(b, d.extents[0].start); err != nil {
		return raw, err
	}
	seed := w.inodeSeed(journalInode)
	root, extra, err := w.extentTree(d.extents, seed)
	if err != nil {
		return raw, err
	}
	copy(raw[0x28:], root[:])
	binary.LittleEndian.PutUint32(raw[0x20:], flagExtents)
	t := w.opts.Time
	n := &Node{Mode: syscall.S_IFREG | 0o600, Mtime: t}
	putInode(raw[:], n, 1, d.Size, d.blocks()+extra, 0)
	sealInode(raw[:], seed)
	return raw, nil
}
