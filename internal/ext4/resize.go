package ext4

import (
	"encoding/binary"
	"syscall"
)

// While it is mounted, a file system can grow to growFactor times its size, or to growLeast bytes
// if that is more.
const (
	growFactor = 16
	growLeast  = 1 << 40

	addresses = blockSize / 4 // block addresses in an indirect block
)

// reserve returns how many blocks are kept after the group descriptors for the descriptors of later
// groups.
func (w *Writer) reserve() uint32 {
	size := min(max(w.opts.Size*growFactor, growLeast), MaxSize)
	groups := (size + blocksPerGroup*blockSize - 1) / (blocksPerGroup * blockSize)
	want := uint32((groups*descSize + blockSize - 1) / blockSize)
	return min(max(want, w.gdtBlocks)-w.gdtBlocks, addresses)
}

// writeResizeInode writes the metadata of the file that owns the reserved blocks, and returns its
// inode. Its double-indirect block lists the reserved blocks after the first descriptors. Each of
// these is an indirect block that lists its copies in the groups with backups (super.rst;
// lib/ext2fs/res_gdt.c of e2fsprogs).
func (w *Writer) writeResizeInode() (raw [inodeSize]byte, err error) {
	le := binary.LittleEndian
	var backups []uint32
	for g := uint32(1); g < w.groups; g++ {
		if hasSuper(g) {
			backups = append(backups, g*blocksPerGroup)
		}
	}
	top := make([]byte, blockSize)
	primary := make([]byte, int(w.reserved)*blockSize)
	for i := range w.reserved {
		at := 1 + w.gdtBlocks + i
		le.PutUint32(top[(w.gdtBlocks+i)%addresses*4:], at)
		for j, first := range backups {
			le.PutUint32(primary[int(i)*blockSize+4*j:], first+at)
		}
	}
	if len(backups) > 0 {
		if err := w.writeBlocks(primary, uint64(1+w.gdtBlocks)); err != nil {
			return raw, err
		}
	}
	block, _, err := w.allocate(1)
	if err != nil {
		return raw, err
	}
	if err := w.writeBlocks(top, block); err != nil {
		return raw, err
	}
	le.PutUint32(raw[0x28+13*4:], uint32(block))
	t := w.opts.Time
	n := &Node{Mode: syscall.S_IFREG | 0o600, Mtime: t}
	blocks := 1 + uint64(w.reserved)*uint64(1+len(backups))
	putInode(raw[:], n, 1, (addresses*addresses+addresses+12)*blockSize, blocks, 0)
	sealInode(raw[:], w.inodeSeed(resizeInode))
	return raw, nil
}
