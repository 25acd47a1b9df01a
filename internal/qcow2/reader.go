package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Flags and the place in an entry of a table.
const (
	flagCompressed = 1 << 62
	flagZero       = 1
	placeMask      = 1<<56 - 1<<9
)

// Overlay reads an overlay. It implements io.ReaderAt for the whole disk, base included. Its methods must not be called
// at the same time.
type Overlay struct {
	r, base io.ReaderAt
	size    int64
	table   int64  // where the table of tables is
	at      int64  // number of the table of clusters in entries, or -1
	entries []byte // that table
}

// Open returns a reader of the overlay in r of a disk of size bytes. base is the disk beneath it; what it does not have
// is zero. An error is ErrForeign if the overlay is not as Create makes it.
func Open(r io.ReaderAt, size int64, base io.ReaderAt) (*Overlay, error) {
	table, err := check(r, size)
	if err != nil {
		return nil, err
	}
	return &Overlay{r: r, base: base, size: size, table: table, at: -1, entries: make([]byte, cluster)}, nil
}

// Untouched reports whether the overlay in r of a disk of size bytes has nothing, so that the disk is what its base is.
func Untouched(r io.ReaderAt, size int64) (bool, error) {
	table, err := check(r, size)
	if err != nil {
		return false, err
	}
	entries := make([]byte, 8*tablesOf(size))
	if err := full(r, entries, table); err != nil {
		return false, err
	}
	return !slices.ContainsFunc(entries, func(b byte) bool { return b != 0 }), nil
}

// Size returns the size of the disk in bytes.
func (o *Overlay) Size() int64 { return o.size }

// ReadAt implements io.ReaderAt.
func (o *Overlay) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("the position is negative")
	}
	for n < len(p) {
		at := off + int64(n)
		if at >= o.size {
			return n, io.EOF
		}
		part := p[n:]
		part = part[:min(int64(len(part)), cluster-at%cluster, o.size-at)]
		if err := o.read(part, at); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// read reads a part of one cluster.
func (o *Overlay) read(p []byte, at int64) error {
	entry, err := o.entry(at / cluster)
	switch {
	case err != nil:
		return err
	case entry&flagCompressed != 0:
		return fmt.Errorf("%w: it has a compressed cluster", ErrForeign)
	case entry&flagZero != 0:
		clear(p)
		return nil
	case entry&placeMask == 0:
		return full(o.base, p, at)
	}
	place := int64(entry & placeMask)
	if place%cluster != 0 {
		return fmt.Errorf("%w: a cluster is at %d", ErrForeign, place)
	}
	return full(o.r, p, place+at%cluster)
}

// entry returns the entry of a cluster.
func (o *Overlay) entry(number int64) (uint64, error) {
	if table := number / perTable; table != o.at {
		var e [8]byte
		o.at = -1
		if err := full(o.r, e[:], o.table+8*table); err != nil {
			return 0, err
		}
		place := int64(binary.BigEndian.Uint64(e[:]) & placeMask)
		if place%cluster != 0 {
			return 0, fmt.Errorf("%w: a table is at %d", ErrForeign, place)
		}
		clear(o.entries)
		if place > 0 {
			if err := full(o.r, o.entries, place); err != nil {
				return 0, err
			}
		}
		o.at = table
	}
	return binary.BigEndian.Uint64(o.entries[number%perTable*8:]), nil
}

// full reads len(p) bytes. What lies behind the end is zero.
func full(r io.ReaderAt, p []byte, at int64) error {
	n, err := r.ReadAt(p, at)
	if errors.Is(err, io.EOF) {
		clear(p[n:])
		return nil
	}
	return err
}

// Data calls do with the bytes of the disk in their order, a cluster or less at a time, and leaves out clusters of
// zeros that no file of the chain has. p is valid only during the call.
func (o *Overlay) Data(do func(p []byte, at int64) error) error {
	buf := make([]byte, cluster)
	for at := int64(0); at < o.size; {
		next, has, err := o.next(at)
		if err != nil {
			return err
		}
		if !has {
			at = next
			continue
		}
		p := buf[:min(cluster-at%cluster, o.size-at)]
		if err := o.read(p, at); err != nil {
			return err
		}
		if err := do(p, at); err != nil {
			return err
		}
		at += int64(len(p))
	}
	return nil
}

// seeker is a base that knows its holes.
type seeker interface {
	// next returns whether the base has data at a position and, if not, a position up to which it has none.
	next(at int64) (to int64, has bool, err error)
}

// next implements seeker for overlays.
func (o *Overlay) next(at int64) (to int64, has bool, err error) {
	entry, err := o.entry(at / cluster)
	if err != nil || entry&^uint64(flagZero) != 0 {
		return at, true, err
	}
	end := min(at/cluster*cluster+cluster, o.size)
	if base, ok := o.base.(seeker); ok && entry == 0 {
		to, has, err = base.next(at)
		return min(to, end), has, err
	}
	return end, entry == 0, nil
}
