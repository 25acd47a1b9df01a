//go:build power

package power

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
)

// entry is one entry of the log: a write, a flush, or a discard. Discarded blocks read as zeros
// afterwards.
type entry struct {
	offset, size int64 // bytes of the disk
	data         int64 // where they are in the log; -1: zeros
	flags        uint64
}

// Flags of an entry (Linux, Documentation/admin-guide/device-mapper/log-writes.rst).
const (
	flagFlush   = 1
	flagFUA     = 2
	flagDiscard = 4
)

const logMagic = 0x6a736677736872

// block is the unit that a disk writes completely or not at all.
const block = 4096

// isNote reports whether an entry is a note and not a part of the file system.
func (e entry) isNote() bool { return e.size > 0 && e.offset >= fsSize }

// readLog returns the entries of a log in the format of dm-log-writes.
func readLog(log *os.File) ([]entry, error) {
	var super struct {
		Magic, Version, Entries uint64
		SectorSize              uint32
	}
	if err := binary.Read(io.NewSectionReader(log, 0, 28), binary.LittleEndian, &super); err != nil {
		return nil, err
	}
	if super.Magic != logMagic || super.Version != 1 || super.SectorSize != 512 {
		return nil, fmt.Errorf("the log begins with %+v", super)
	}
	list := make([]entry, 0, super.Entries)
	at := int64(super.SectorSize)
	for range super.Entries {
		var raw struct{ Sector, Sectors, Flags, Size uint64 }
		if err := binary.Read(io.NewSectionReader(log, at, 32), binary.LittleEndian, &raw); err != nil {
			return nil, err
		}
		at += 512
		e := entry{offset: int64(raw.Sector) * 512, size: int64(raw.Sectors) * 512, data: at, flags: raw.Flags}
		if e.flags&flagDiscard != 0 {
			e.data = -1
		} else {
			at += e.size
		}
		list = append(list, e)
	}
	return list, nil
}

// apply applies the entry to an image, but only to those blocks for which keep returns true.
func (e entry) apply(image, log *os.File, keep func() bool) error {
	if e.size == 0 {
		return nil
	}
	data := make([]byte, e.size)
	if e.data >= 0 {
		if _, err := log.ReadAt(data, e.data); err != nil {
			return err
		}
	}
	if keep == nil {
		_, err := image.WriteAt(data, e.offset)
		return err
	}
	for from := int64(0); from < e.size; {
		to := min(e.size, from+block-(e.offset+from)%block)
		if keep() {
			if _, err := image.WriteAt(data[from:to], e.offset+from); err != nil {
				return err
			}
		}
		from = to
	}
	return nil
}

// cut is an instant at which the power fails, given as a number of entries of the log.
type cut struct {
	at       int
	reorders bool // each block that is not flushed may be there or not; otherwise all of them are
	seed     uint64
}

func (c cut) String() string {
	if c.reorders {
		return fmt.Sprintf("cut %d, half of what is not flushed", c.at)
	}
	return fmt.Sprintf("cut %d", c.at)
}

// replay makes the disk that a power cut leaves. Cuts must come in the order of the log, because
// the image grows with them.
type replay struct {
	log     *os.File
	entries []entry
	image   *os.File // what is durable at the last cut
	done    int      // entries in image
}

// until brings the image to the state at the last flush before c, and returns what was written
// since.
func (r *replay) until(c cut) (since []entry, err error) {
	flushed := r.done
	for i := r.done; i < c.at; i++ {
		if r.entries[i].flags&flagFlush != 0 {
			flushed = i + 1
		}
	}
	for ; r.done < flushed; r.done++ {
		if err := r.entries[r.done].apply(r.image, r.log, nil); err != nil {
			return nil, err
		}
	}
	return r.entries[flushed:c.at], nil
}

// fail writes the disk that c leaves to path.
func (r *replay) fail(c cut, path string) error {
	since, err := r.until(c)
	if err != nil {
		return err
	}
	if _, err := tool("cp", "--sparse=auto", r.image.Name(), path); err != nil {
		return err
	}
	image, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer image.Close()
	dice := rand.New(rand.NewPCG(c.seed, uint64(c.at)))
	for _, e := range since {
		keep := func() bool { return dice.IntN(2) == 0 }
		if !c.reorders || e.flags&flagFUA != 0 {
			keep = nil
		}
		if err := e.apply(image, r.log, keep); err != nil {
			return err
		}
	}
	return nil
}

// acknowledged returns the latest note of each client before c.
func (r *replay) acknowledged(c cut) (n [clients]int, err error) {
	for _, e := range r.entries[:c.at] {
		if !e.isNote() {
			continue
		}
		var count [8]byte
		if _, err := r.log.ReadAt(count[:], e.data); err != nil {
			return n, err
		}
		n[(e.offset-fsSize)/512] = int(binary.LittleEndian.Uint64(count[:]))
	}
	return n, nil
}

// chooseCuts returns n instants after the first note. Half of them are directly after a note, which
// was then just acknowledged, and half are anywhere.
func chooseCuts(entries []entry, n int, seed uint64) []int {
	first, notes := -1, []int{}
	for i, e := range entries {
		if e.isNote() {
			notes = append(notes, i+1)
			if first < 0 {
				first = i + 1
			}
		}
	}
	dice := rand.New(rand.NewPCG(seed, 1))
	var list []int
	for i := range n {
		if i%2 == 0 {
			list = append(list, notes[dice.IntN(len(notes))])
		} else {
			list = append(list, first+dice.IntN(len(entries)-first+1))
		}
	}
	slices.Sort(list)
	return list
}
