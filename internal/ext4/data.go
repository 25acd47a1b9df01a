package ext4

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"io"
	"slices"
)

// Data is the content of one regular file. It is already written.
type Data struct {
	Size    int64 // bytes
	extents []extent
}

type extent struct {
	logical uint32 // block of the file
	count   uint32
	start   uint64 // block of the file system
}

const (
	maxExtent    = 32768             // blocks; a longer extent would mean "unwritten"
	maxFile      = (1<<32 - 1) << 12 // bytes that an extent tree can address
	extentHeader = 12
	extentEntry  = 12
	inodeExtents = 4
	blockExtents = (blockSize - extentHeader - 4) / extentEntry
)

var zeroBlock [blockSize]byte

// WriteData is Area.WriteData for a file system without areas.
func (w *Writer) WriteData(r io.Reader) (Data, error) {
	if w.areas == nil {
		w.Areas(1)
	}
	return w.areas[0].WriteData(r)
}

// blockRun returns how many blocks at the start of p are either all holes or all data.
func blockRun(p []byte) int {
	hole := bytes.Equal(p[:blockSize], zeroBlock[:])
	n := 1
	for n*blockSize < len(p) && bytes.Equal(p[n*blockSize:(n+1)*blockSize], zeroBlock[:]) == hole {
		n++
	}
	return n
}

func appendExtent(list []extent, e extent) []extent {
	if n := len(list); n > 0 {
		last := &list[n-1]
		if last.logical+last.count == e.logical && last.start+uint64(last.count) == e.start &&
			last.count+e.count <= maxExtent {
			last.count += e.count
			return list
		}
	}
	return append(list, e)
}

// Free frees a file's blocks, for content that was written and then hidden. If the File is a
// Puncher, Finish makes holes of the blocks.
func (w *Writer) Free(d Data) {
	for _, e := range d.extents {
		for n := uint32(0); n < e.count; {
			at := e.start + uint64(n)
			group, from := uint32(at/blocksPerGroup), uint32(at%blocksPerGroup)
			run := min(e.count-n, blocksPerGroup-from)
			w.mark(group, from, run, false)
			n += run
		}
	}
	w.freed = append(w.freed, d.extents...)
}

// punch makes holes of the freed blocks. It joins neighbours, because each call costs time.
func (w *Writer) punch() error {
	f, ok := w.f.(Puncher)
	if !ok {
		return nil
	}
	slices.SortFunc(w.freed, func(a, b extent) int { return cmp.Compare(a.start, b.start) })
	for len(w.freed) > 0 {
		start := w.freed[0].start
		end := start
		for len(w.freed) > 0 && w.freed[0].start == end {
			end += uint64(w.freed[0].count)
			w.freed = w.freed[1:]
		}
		if err := f.PunchHole(int64(start)*blockSize, int64(end-start)*blockSize); err != nil {
			return err
		}
	}
	return nil
}

// blocks returns the number of blocks of the data itself.
func (d Data) blocks() uint64 {
	var n uint64
	for _, e := range d.extents {
		n += uint64(e.count)
	}
	return n
}

// treeEntry is one entry of an extent tree, leaf or index, with its key.
type treeEntry struct {
	logical uint32
	raw     [extentEntry]byte
}

// extentTree writes the part of the tree that does not fit into the inode. It returns the 60 bytes
// of i_block and the number of blocks of the tree.
func (w *Writer) extentTree(list []extent, inodeSeed uint32) (root [60]byte, extra uint64, err error) {
	level := make([]treeEntry, len(list))
	for i, e := range list {
		level[i].logical = e.logical
		raw := level[i].raw[:]
		binary.LittleEndian.PutUint32(raw, e.logical)
		binary.LittleEndian.PutUint16(raw[4:], uint16(e.count)) // 32768 means a full extent
		binary.LittleEndian.PutUint16(raw[6:], uint16(e.start>>32))
		binary.LittleEndian.PutUint32(raw[8:], uint32(e.start))
	}
	depth := uint16(0)
	for len(level) > inodeExtents {
		var parents []treeEntry
		for len(level) > 0 {
			n := min(len(level), blockExtents)
			p, err := w.writeExtentBlock(level[:n], depth, inodeSeed)
			if err != nil {
				return root, 0, err
			}
			extra++
			parents = append(parents, p)
			level = level[n:]
		}
		level = parents
		depth++
	}
	putExtents(root[:], level, inodeExtents, depth)
	return root, extra, nil
}

// writeExtentBlock writes one block of the tree and returns the entry for it.
func (w *Writer) writeExtentBlock(level []treeEntry, depth uint16, inodeSeed uint32) (treeEntry, error) {
	block := make([]byte, blockSize)
	putExtents(block, level, blockExtents, depth)
	const tail = extentHeader + blockExtents*extentEntry
	binary.LittleEndian.PutUint32(block[tail:], checksum(inodeSeed, block[:tail]))
	at, _, err := w.allocate(1)
	if err != nil {
		return treeEntry{}, err
	}
	p := treeEntry{logical: level[0].logical}
	binary.LittleEndian.PutUint32(p.raw[:], p.logical)
	binary.LittleEndian.PutUint32(p.raw[4:], uint32(at))
	binary.LittleEndian.PutUint16(p.raw[8:], uint16(at>>32))
	return p, w.writeBlocks(block, at)
}

func putExtents(b []byte, level []treeEntry, limit int, depth uint16) {
	binary.LittleEndian.PutUint16(b, 0xF30A)
	binary.LittleEndian.PutUint16(b[2:], uint16(len(level)))
	binary.LittleEndian.PutUint16(b[4:], uint16(limit))
	binary.LittleEndian.PutUint16(b[6:], depth)
	for i, e := range level {
		copy(b[extentHeader+i*extentEntry:], e.raw[:])
	}
}
