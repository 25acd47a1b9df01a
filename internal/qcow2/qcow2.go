// Package qcow2 writes and reads the files in which QEMU keeps what a disk has that its base does not have: overlays in
// the format qcow2, version 3 (QEMU's docs/interop/qcow2.txt). A VMM may have written anything into such a file. So the
// package believes only the tables that say which cluster is where, each number within its bounds. It never follows a
// name in a file: the caller says what the base is.
//
// The package must not know of VMs, nor where files are.
package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// The layout of the files that Create makes.
const (
	clusterBits = 16
	cluster     = 1 << clusterBits
	perTable    = cluster / 8 // entries of a table of clusters
	headerSize  = 112         // with the type of the compression, which is 0
	refcountAt  = 1 * cluster // the table of the blocks of reference counts
	blockAt     = 2 * cluster // the first of these blocks
	tableAt     = 3 * cluster // the table of the tables of clusters
)

// MaxSize is the maximum size of a disk in bytes: one whose table of tables fits into 128 clusters.
const MaxSize = 128 * perTable * perTable * cluster

// magic begins a file: "QFI" and 0xfb.
const magic = 0x514649fb

// Places of fields in the header, and their sizes in bits.
const (
	fieldBacking      = 8   // 64: place of the base's name
	fieldClusterBits  = 20  // 32
	fieldSize         = 24  // 64
	fieldCrypt        = 32  // 32
	fieldTables       = 36  // 32: number of entries of the table of tables
	fieldTableAt      = 40  // 64
	fieldRefcountAt   = 48  // 64
	fieldRefcounts    = 56  // 32: number of clusters of the table
	fieldSnapshots    = 60  // 32
	fieldIncompatible = 72  // 64
	fieldRefcountBits = 96  // 32: as a power of two
	fieldHeaderSize   = 100 // 32
)

// incompatibleDirty is the feature that may be set after a crash: reference counts may be wrong, which matters to
// nobody who only reads.
const incompatibleDirty = 1

// Create writes an empty overlay of a disk of size bytes to f, an empty file. size must be at most MaxSize. The caller
// syncs the file.
func Create(f *os.File, size int64) error {
	if size <= 0 || size > MaxSize {
		return fmt.Errorf("a disk of %d bytes has no overlay", size)
	}
	tables := tablesOf(size)
	inTable := (tables*8 + cluster - 1) / cluster // clusters of the table of tables
	used := 3 + inTable
	head := make([]byte, headerSize)
	be := binary.BigEndian
	be.PutUint32(head, magic)
	be.PutUint32(head[4:], 3)
	be.PutUint32(head[fieldClusterBits:], clusterBits)
	be.PutUint64(head[fieldSize:], uint64(size))
	be.PutUint32(head[fieldTables:], uint32(tables))
	be.PutUint64(head[fieldTableAt:], tableAt)
	be.PutUint64(head[fieldRefcountAt:], refcountAt)
	be.PutUint32(head[fieldRefcounts:], 1)
	be.PutUint32(head[fieldRefcountBits:], 4) // 16 bits each
	be.PutUint32(head[fieldHeaderSize:], headerSize)
	counts := make([]byte, 2*used)
	for i := range used {
		be.PutUint16(counts[2*i:], 1)
	}
	block := be.AppendUint64(nil, blockAt)
	for at, data := range map[int64][]byte{0: head, refcountAt: block, blockAt: counts} {
		if _, err := f.WriteAt(data, at); err != nil {
			return err
		}
	}
	return f.Truncate(int64(used) * cluster)
}

// tablesOf returns how many tables of clusters a disk of size bytes has.
func tablesOf(size int64) int {
	const covers = perTable * cluster
	return int((size + covers - 1) / covers)
}

// Check returns an error unless the header in r is one of an overlay of a disk of size bytes, as Create makes it, that
// names no other file. A VMM that opens such a file opens nothing else because of it.
func Check(r io.ReaderAt, size int64) error {
	_, err := check(r, size)
	return err
}

// check returns where the table of tables is.
func check(r io.ReaderAt, size int64) (table int64, err error) {
	head := make([]byte, headerSize+8) // with the first extension of the header, which must be none
	if _, err := r.ReadAt(head, 0); err != nil {
		return 0, fmt.Errorf("the header of an overlay cannot be read: %w", err)
	}
	be := binary.BigEndian
	if be.Uint32(head) == magic && be.Uint64(head[fieldBacking:]) != 0 {
		return 0, fmt.Errorf("%w: it names another file", ErrForeign)
	}
	table = int64(be.Uint64(head[fieldTableAt:]))
	for _, c := range []struct {
		what string
		ok   bool
	}{
		{"format", be.Uint32(head) == magic && be.Uint32(head[4:]) == 3},
		{"size of clusters", be.Uint32(head[fieldClusterBits:]) == clusterBits},
		{"size", be.Uint64(head[fieldSize:]) == uint64(size)},
		{"encryption", be.Uint32(head[fieldCrypt:]) == 0},
		{"tables", be.Uint32(head[fieldTables:]) == uint32(tablesOf(size)) && table > 0 && table%cluster == 0},
		{"snapshots", be.Uint32(head[fieldSnapshots:]) == 0},
		{"features", be.Uint64(head[fieldIncompatible:])&^incompatibleDirty == 0},
		{"extension", be.Uint32(head[fieldHeaderSize:]) == headerSize && be.Uint64(head[headerSize:]) == 0},
	} {
		if !c.ok {
			return 0, fmt.Errorf("%w: its %s is not that of an overlay of %d bytes", ErrForeign, c.what, size)
		}
	}
	return table, nil
}

// ErrForeign means that a file is not an overlay as Create makes it.
var ErrForeign = errors.New("the overlay is not as it was made")
