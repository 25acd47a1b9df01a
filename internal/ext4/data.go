package ext4

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	chunkSize     = 256 << 10 // read at once by WriteData
	pendingSize   = 1 << 20   // written at once
	maxExtent     = 32768     // blocks in one initialised extent
	maxFileBlocks = 1<<32 - 1
)

// Data is the content of one regular file: where its blocks lie. The zero value
// is an empty file.
type Data struct {
	size    int64
	extents []extent
}

// Size returns the length in bytes, holes included.
func (d *Data) Size() int64 { return d.size }

// Blocks returns how many blocks the content occupies, holes excluded.
func (d *Data) Blocks() uint64 {
	n := uint64(0)
	for _, e := range d.extents {
		n += uint64(e.length)
	}
	return n
}

type extent struct {
	logical, length uint32
	start           uint64
}

// run is a range of blocks.
type run struct{ start, length uint64 }

var zeroBlock [BlockSize]byte

// WriteData writes the content of one file, read from r to its end. Blocks of
// zeros become holes. On an error of r or of the file, and when the file system
// is full (ErrNoSpace), the blocks are given back.
func (w *Writer) WriteData(r io.Reader) (Data, error) {
	if w.chunk == nil {
		w.chunk = make([]byte, chunkSize)
	}
	var d Data
	for {
		n, err := io.ReadFull(r, w.chunk)
		if n > 0 {
			if err := w.appendData(&d, n); err != nil {
				w.Free(d)
				return Data{}, err
			}
		}
		switch {
		case errors.Is(err, io.EOF) || err == io.ErrUnexpectedEOF && n < chunkSize && readToEnd(r):
			d.extents = slices.Clip(d.extents)
			return d, nil
		case err != nil:
			w.Free(d)
			return Data{}, err
		}
	}
}

// readToEnd tells the short read that io.ReadFull reports from a reader that
// itself failed with io.ErrUnexpectedEOF, as those of archive/tar do: only the
// former is at a clean end.
func readToEnd(r io.Reader) bool {
	var b [1]byte
	n, err := r.Read(b[:])
	return n == 0 && err == io.EOF
}

// appendData adds the first n bytes of the chunk to d.
func (w *Writer) appendData(d *Data, n int) error {
	tail := (n + BlockSize - 1) / BlockSize * BlockSize
	clear(w.chunk[n:tail])
	for at := 0; at < tail; at += BlockSize {
		logical := uint64(d.size+int64(at)) / BlockSize
		if logical >= maxFileBlocks {
			return fmt.Errorf("a file of more than %d bytes does not fit: %w", int64(maxFileBlocks)*BlockSize, ErrNoSpace)
		}
		block := w.chunk[at : at+BlockSize]
		if bytes.Equal(block, zeroBlock[:]) {
			continue
		}
		start, _, err := w.alloc(1)
		if err != nil {
			return err
		}
		d.add(uint32(logical), start, 1)
		if err := w.put(start, block); err != nil {
			return err
		}
	}
	d.size += int64(n)
	return nil
}

// add appends n blocks, joining them to the last extent where possible.
func (d *Data) add(logical uint32, start uint64, n uint32) {
	if k := len(d.extents); k > 0 {
		e := &d.extents[k-1]
		if e.logical+e.length == logical && e.start+uint64(e.length) == start && e.length+n <= maxExtent {
			e.length += n
			return
		}
	}
	d.extents = append(d.extents, extent{logical, n, start})
}

// Free gives the blocks of d back; nothing may refer to d any more.
func (w *Writer) Free(d Data) {
	for _, e := range d.extents {
		w.freed = append(w.freed, run{e.start, uint64(e.length)})
	}
}

// alloc takes up to want adjacent blocks. It walks through the groups once, so
// that content written one after another lies one after another, and then uses
// what was freed.
func (w *Writer) alloc(want uint64) (start, n uint64, err error) {
	for w.next == w.runEnd && w.group+1 < w.geo.groups {
		w.group++
		w.next, w.runEnd = w.geo.freeRun(w.group)
	}
	if w.next < w.runEnd {
		start, n = w.next, min(want, w.runEnd-w.next)
		w.next += n
		return start, n, nil
	}
	if len(w.freed) == 0 {
		return 0, 0, ErrNoSpace
	}
	last := &w.freed[len(w.freed)-1]
	start, n = last.start, min(want, last.length)
	last.start, last.length = last.start+n, last.length-n
	if last.length == 0 {
		w.freed = w.freed[:len(w.freed)-1]
	}
	return start, n, nil
}

// allocate takes blocks for a file without holes, to be written by the caller
// or left zero.
func (w *Writer) allocate(blocks uint64) (Data, error) {
	d := Data{size: int64(blocks) * BlockSize}
	for done := uint64(0); done < blocks; {
		start, n, err := w.alloc(min(blocks-done, maxExtent))
		if err != nil {
			w.Free(d)
			return Data{}, err
		}
		d.add(uint32(done), start, uint32(n))
		done += n
	}
	return d, nil
}

// put writes one block, gathering adjacent ones.
func (w *Writer) put(block uint64, p []byte) error {
	adjacent := w.pendAt+uint64(len(w.pending))/BlockSize == block
	if len(w.pending) > 0 && (!adjacent || len(w.pending)+len(p) > pendingSize) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if w.pending == nil {
		w.pending = make([]byte, 0, pendingSize)
	}
	if len(w.pending) == 0 {
		w.pendAt = block
	}
	w.pending = append(w.pending, p...)
	return nil
}

func (w *Writer) flush() error {
	if len(w.pending) == 0 {
		return nil
	}
	err := w.writeAt(w.pending, int64(w.pendAt)*BlockSize)
	w.pending = w.pending[:0]
	return err
}

func (w *Writer) writeAt(p []byte, at int64) error {
	if _, err := w.file.WriteAt(p, at); err != nil {
		return fmt.Errorf("write the ext4 image: %w", err)
	}
	return nil
}

// releaseFreed sorts and joins what was freed, and gives it back to the host.
func (w *Writer) releaseFreed() {
	slices.SortFunc(w.freed, func(a, b run) int { return cmp.Compare(a.start, b.start) })
	joined := w.freed[:0]
	for _, r := range w.freed {
		if k := len(joined); k > 0 && joined[k-1].start+joined[k-1].length == r.start {
			joined[k-1].length += r.length
			continue
		}
		joined = append(joined, r)
	}
	w.freed = joined
	p, ok := w.file.(interface{ PunchHole(offset, length int64) error })
	if !ok {
		return
	}
	for _, r := range w.freed {
		if p.PunchHole(int64(r.start)*BlockSize, int64(r.length)*BlockSize) != nil {
			return // a host without holes only loses the space
		}
	}
}
