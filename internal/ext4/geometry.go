package ext4

import "fmt"

const (
	blocksPerGroup = 8 * BlockSize // what one bitmap block covers: 128 MiB
	inodeSize      = 256
	inodesPerBlock = BlockSize / inodeSize
	descSize       = 64
	bytesPerInode  = 16 << 10
	maxFlex        = 16 // groups whose metadata lie together, as mke2fs has it
	minGroup       = 64 // data blocks that a last, short group must have to be worth it
)

// geometry says where everything lies. All of it follows from Options alone.
//
// Metadata come first in a group, so each group has exactly one free run behind
// them: the backup superblock and descriptors (sparse_super: groups 0, 1 and the
// powers of 3, 5 and 7), then, in the first group of each flex group, the block
// bitmaps, inode bitmaps and inode tables of all groups of that flex group.
type geometry struct {
	blocks         uint64 // of the file system; at most Size/BlockSize
	groups         uint64
	inodesPerGroup uint32
	tableBlocks    uint64 // of one group's inode table
	descBlocks     uint64 // of the descriptor table
	logFlex        uint8
}

func newGeometry(o Options) (geometry, error) {
	if o.Size < MinSize || o.Size > MaxSize || o.Size%BlockSize != 0 {
		return geometry{}, fmt.Errorf("ext4 size %d is not a multiple of %d between %d and %d", o.Size, BlockSize, MinSize, int64(MaxSize))
	}
	g := geometry{blocks: uint64(o.Size) / BlockSize}
	inodes := max(uint64(o.Inodes), uint64(o.Size)/bytesPerInode)
	if o.Inodes != 0 {
		inodes = max(uint64(o.Inodes), firstIno)
	}
	for {
		g.groups = (g.blocks + blocksPerGroup - 1) / blocksPerGroup
		perGroup := (inodes + g.groups - 1) / g.groups
		perGroup = (perGroup + inodesPerBlock - 1) / inodesPerBlock * inodesPerBlock
		if perGroup > blocksPerGroup/2 {
			return geometry{}, fmt.Errorf("%d inodes are too many for an ext4 file system of %d bytes", inodes, o.Size)
		}
		g.inodesPerGroup = uint32(perGroup)
		g.tableBlocks = perGroup / inodesPerBlock
		g.descBlocks = (g.groups*descSize + BlockSize - 1) / BlockSize
		g.logFlex = 0
		for f := uint64(2); f <= maxFlex && 1+g.descBlocks+f*(2+g.tableBlocks)+minGroup <= blocksPerGroup; f *= 2 {
			g.logFlex++
		}
		last := g.groups - 1
		if g.metaBlocks(last)+minGroup <= g.end(last)-last*blocksPerGroup {
			return g, nil
		}
		if last == 0 {
			return geometry{}, fmt.Errorf("%d inodes are too many for an ext4 file system of %d bytes", inodes, o.Size)
		}
		g.blocks = last * blocksPerGroup // drop a short group with no room for its own metadata
	}
}

// end returns the first block behind group i.
func (g *geometry) end(i uint64) uint64 { return min((i+1)*blocksPerGroup, g.blocks) }

// superBlocks returns how many blocks superblock and descriptors take in group i.
func (g *geometry) superBlocks(i uint64) uint64 {
	if !hasSuper(i) {
		return 0
	}
	return 1 + g.descBlocks
}

func hasSuper(i uint64) bool {
	if i <= 1 {
		return true
	}
	for _, base := range [...]uint64{3, 5, 7} {
		p := base
		for p < i {
			p *= base
		}
		if p == i {
			return true
		}
	}
	return false
}

// flex returns the first group of i's flex group and the number of groups in it.
func (g *geometry) flex(i uint64) (first, n uint64) {
	first = i >> g.logFlex << g.logFlex
	return first, min(uint64(1)<<g.logFlex, g.groups-first)
}

// metaBlocks returns how many blocks at the start of group i hold metadata.
func (g *geometry) metaBlocks(i uint64) uint64 {
	n := g.superBlocks(i)
	if first, in := g.flex(i); first == i {
		n += in * (2 + g.tableBlocks)
	}
	return n
}

// freeRun returns the blocks of group i that can hold data.
func (g *geometry) freeRun(i uint64) (start, end uint64) {
	return i*blocksPerGroup + g.metaBlocks(i), g.end(i)
}

// bitmaps and table return the blocks that describe group i.
func (g *geometry) blockBitmap(i uint64) uint64 {
	first, _ := g.flex(i)
	return first*blocksPerGroup + g.superBlocks(first) + (i - first)
}

func (g *geometry) inodeBitmap(i uint64) uint64 {
	_, n := g.flex(i)
	return g.blockBitmap(i) + n
}

func (g *geometry) inodeTable(i uint64) uint64 {
	first, n := g.flex(i)
	return first*blocksPerGroup + g.superBlocks(first) + 2*n + (i-first)*g.tableBlocks
}

// inodeAt returns the offset in bytes of inode ino.
func (g *geometry) inodeAt(ino uint32) int64 {
	i := uint64(ino-1) / uint64(g.inodesPerGroup)
	index := uint64(ino-1) % uint64(g.inodesPerGroup)
	return int64(g.inodeTable(i)*BlockSize + index*inodeSize)
}

// journalBlocks returns the size of the journal, as mke2fs chooses it.
func journalBlocks(blocks uint64) uint64 {
	for _, s := range [...]struct{ below, journal uint64 }{
		{32768, 1024}, {256 << 10, 4096}, {512 << 10, 8192}, {4096 << 10, 16384}, {8192 << 10, 32768}, {32768 << 10, 65536},
	} {
		if blocks < s.below {
			return s.journal
		}
	}
	return 256 << 10
}
