package qemu

import (
	"fmt"
	"os"

	"banger/internal/vmm"
)

// Where a pc-q35 machine has its memory (hw/i386/pc_q35.c): one that is too large to lie
// below its PCI hole has the rest from 4 GiB on.
const (
	lowLimit = 0xb0000000
	lowSplit = 0x80000000
	highRAM  = 1 << 32
)

// OpenRAM opens the file that is the guest's memory. A restored VM has its memory for
// itself, copied as it is written to.
func (p *process) OpenRAM() (vmm.RAM, error) {
	if p.config.Restore != "" && hasRAM(p.config.Restore) {
		return nil, nil
	}
	f, err := os.OpenFile(p.config.Memory, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the guest's memory: %w", err)
	}
	return newRAM(f, int64(p.config.MemoryMiB)<<20), nil
}

// ram is memory in a file, which is read and written there and not mapped, so that neither
// its size nor its end is ours.
type ram struct {
	*os.File
	size, low int64
}

func newRAM(f *os.File, size int64) *ram {
	low := size
	if size >= lowLimit {
		low = lowSplit
	}
	return &ram{f, size, low}
}

// offset is where the n bytes from a guest-physical address on lie in the file.
func (r *ram) offset(at int64, n int) (int64, error) {
	end := at + int64(n)
	switch {
	case at >= 0 && end <= r.low && end >= at:
		return at, nil
	case at >= highRAM && end >= at && end <= highRAM+r.size-r.low:
		return at - highRAM + r.low, nil
	}
	return 0, fmt.Errorf("the guest has no memory of %d bytes at %#x", n, at)
}

func (r *ram) ReadAt(p []byte, at int64) (int, error) {
	off, err := r.offset(at, len(p))
	if err != nil {
		return 0, err
	}
	return r.File.ReadAt(p, off)
}

func (r *ram) WriteAt(p []byte, at int64) (int, error) {
	off, err := r.offset(at, len(p))
	if err != nil {
		return 0, err
	}
	return r.File.WriteAt(p, off)
}
