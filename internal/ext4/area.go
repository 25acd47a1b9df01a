package ext4

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// Area is a share of the file system's blocks. One goroutine fills it with file contents while
// other goroutines fill other areas. Its blocks depend only on its own calls, so the result does
// not depend on how many goroutines run at once.
type Area struct {
	w      *Writer
	group  uint32 // where the next block is searched
	stride uint32 // distance from one of its own groups to the next
	end    uint32 // first group after its own
	older  *Area  // must be closed before this area takes common blocks
	common bool   // its own groups are full
	closed chan struct{}
	once   sync.Once // closes closed

	buf     []byte
	used    int        // bytes of buf that are still to be written
	start   uint64     // first block of buf in the file system
	spare   []byte     // the other buffer, which may still be being written
	writing chan error // receives the end of that write; nil: it has ended
}

const (
	areaBuffer = 1 << 20  // Go's heap aligns such a buffer to a page, which a File may need
	minRead    = 64 << 10 // bytes of buf that must be free for a read
)

// Areas divides the file system into n areas. Area i has the block groups of the first half whose
// number is i modulo n. The second half is common: an area that is full continues there once all
// areas before it are closed. If there are too few groups, areas without a group of their own start
// in the common half. Areas is called once, before anything is written.
func (w *Writer) Areas(n int) []*Area {
	own, half := uint32(n), w.groups/2
	if n == 1 {
		half = w.groups
	}
	own = min(own, half)
	w.common = half
	if own == 0 || n == 1 {
		w.common = 0
	}
	w.areas = make([]*Area, n)
	for i := range w.areas {
		a := &Area{w: w, group: uint32(i), stride: max(own, 1), end: half, closed: make(chan struct{})}
		if uint32(i) >= own {
			a.group = half
		}
		if i > 0 {
			a.older = w.areas[i-1]
		}
		w.areas[i] = a
	}
	return w.areas
}

// WriteData writes a file's content from r until EOF. Blocks of zeros become holes. It returns
// ErrNoSpace if the file system is full, or the error of r; it then frees what it has allocated.
// Some of the data may be written only by Close.
func (a *Area) WriteData(r io.Reader) (Data, error) {
	if a.buf == nil {
		a.buf, a.spare = make([]byte, areaBuffer), make([]byte, areaBuffer)
	}
	var d Data
	for {
		if len(a.buf)-a.used < minRead {
			if err := a.flush(); err != nil {
				return Data{}, err
			}
		}
		room := a.buf[a.used:]
		n, err := io.ReadFull(r, room)
		if n > 0 {
			if d.Size+int64(n) > maxFile {
				err = errors.New("the file is larger than ext4 allows")
			} else if werr := a.take(&d, room, n); werr != nil {
				err = werr
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return d, nil
		}
		if err != nil {
			a.w.Free(d)
			return Data{}, err
		}
	}
}

// take appends to d the n bytes at the start of room, which is the free part of buf. They are whole
// blocks except at the end of a file.
func (a *Area) take(d *Data, room []byte, n int) error {
	logical := uint32(d.Size / blockSize)
	d.Size += int64(n)
	if tail := n % blockSize; tail != 0 {
		clear(room[n : n+blockSize-tail])
		n += blockSize - tail
	}
	for p := room[:n]; len(p) > 0; {
		run := blockRun(p)
		if bytes.Equal(p[:blockSize], zeroBlock[:]) {
			p = p[run*blockSize:]
			logical += uint32(run)
			continue
		}
		for run > 0 {
			start, got, err := a.allocate(uint32(run))
			if err != nil {
				return err
			}
			d.extents = appendExtent(d.extents, extent{logical, got, start})
			size := int(got) * blockSize
			if err := a.put(p[:size], start); err != nil {
				return err
			}
			p, run, logical = p[size:], run-int(got), logical+got
		}
	}
	return nil
}

// put appends p to the waiting bytes of buf, to be written at block start. p is a part of buf
// behind them.
func (a *Area) put(p []byte, start uint64) error {
	if a.used > 0 && a.start+uint64(a.used/blockSize) != start {
		if err := a.flush(); err != nil {
			return err
		}
	}
	if a.used == 0 {
		a.start = start
	}
	// This moves p only if there is a hole before it, and does not overwrite bytes that are still to be put.
	copy(a.buf[a.used:], p)
	a.used += len(p)
	return nil
}

// flush starts to write the buffer and switches to the other one.
func (a *Area) flush() error {
	if a.used == 0 {
		return nil
	}
	err := a.await()
	if err == nil {
		p, start, ended := a.buf[:a.used], a.start, make(chan error, 1)
		a.writing = ended
		go func() { ended <- a.w.writeBlocks(p, start) }() // awaited before the buffer is filled again
		a.buf, a.spare = a.spare, a.buf
	}
	a.used = 0
	return err
}

// await waits until no write is running.
func (a *Area) await() error {
	if a.writing == nil {
		return nil
	}
	err := <-a.writing
	a.writing = nil
	return err
}

// allocate returns a run of up to want free blocks.
func (a *Area) allocate(want uint32) (start uint64, n uint32, err error) {
	for ; a.group < a.end; a.group += a.stride {
		if start, n = a.w.take(a.group, want); n > 0 {
			return start, n, nil
		}
	}
	if !a.common {
		for older := a.older; older != nil; older = older.older {
			<-older.closed
		}
		a.common = true
		a.w.next = max(a.w.next, a.w.common)
	}
	return a.w.allocate(want)
}

// Close writes what is left. Once all areas before this one are closed as well, later areas may use
// the common blocks. Every area must be closed, even after a failure, because others may wait for
// it.
func (a *Area) Close() error {
	err := a.flush()
	err = errors.Join(err, a.await())
	a.buf, a.spare = nil, nil
	a.once.Do(func() { close(a.closed) })
	return err
}
