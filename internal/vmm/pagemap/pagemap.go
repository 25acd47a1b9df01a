// Package pagemap finds the pages that a process has changed in its private mapping of a file (MAP_PRIVATE, mmap(2)),
// and copies them. A restored VM maps the memory of its snapshot so.
//
// It must not know what the pages hold.
package pagemap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"banger/internal/sparse"
	"banger/internal/vmm"
)

const pageSize = 4096 // of each architecture that we run on; pagemap has an entry for each page

// Bits of an entry of pagemap (Documentation/admin-guide/mm/pagemap.rst). A page that its process has changed is its
// own, in memory or swapped out. A page of the file is one that was only read.
const (
	inMemory = 1 << 63
	swapped  = 1 << 62
	ofFile   = 1 << 61
)

// maxRun is how many bytes are copied at once.
const maxRun = 1 << 20

// Copy writes the pages that the process h has changed in its private mappings of the file mapped, which together map
// all of it once, to the file to, at their places in the file. Nothing may change the pages meanwhile, and the caller
// must be allowed to trace the process (ptrace(2), "Ptrace access mode checking"). Copy ends early with the error of
// ctx.
func Copy(ctx context.Context, h vmm.Handle, mapped, to *os.File) error {
	regions, err := regionsOf(h.PID, mapped)
	if err != nil {
		return fmt.Errorf("looking for the memory of process %d: %w", h.PID, err)
	}
	c := copier{ctx: ctx, to: to, buffer: make([]byte, maxRun)}
	if c.pagemap, err = os.Open(fmt.Sprintf("/proc/%d/pagemap", h.PID)); err != nil {
		return err
	}
	defer c.pagemap.Close()
	if c.memory, err = os.Open(fmt.Sprintf("/proc/%d/mem", h.PID)); err != nil {
		return err
	}
	defer c.memory.Close()
	if !h.Alive() { // the number may be that of another process
		return fmt.Errorf("process %d has ended", h.PID)
	}
	for _, r := range regions {
		if err := c.region(r); err != nil {
			return fmt.Errorf("reading the memory of process %d: %w", h.PID, err)
		}
	}
	return nil
}

// Allowed reports whether Copy can work on this host. A kernel may be built without pagemap, and Yama may let no
// process without privileges look into others, even into its children (Documentation/admin-guide/LSM/Yama.rst).
func Allowed() bool { return allowed("/proc") }

func allowed(proc string) bool {
	if _, err := os.Stat(filepath.Join(proc, "self/pagemap")); err != nil {
		return false
	}
	const onlyDescendants = "1" // or all of the same user, with 0
	scope, err := os.ReadFile(filepath.Join(proc, "sys/kernel/yama/ptrace_scope"))
	return err != nil || strings.TrimSpace(string(scope)) <= onlyDescendants
}

// region is a part of a file in the memory of a process.
type region struct{ address, size, offset int64 }

// regionsOf returns where the process has mapped the file privately.
func regionsOf(pid int, mapped *os.File) ([]region, error) {
	info, err := mapped.Stat()
	if err != nil {
		return nil, err
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", mapped.Fd()))
	if err != nil {
		return nil, err
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	var regions []region
	var sum int64
	for line := range strings.Lines(string(maps)) {
		if r, ok := parse(line, strings.ReplaceAll(path, "\n", `\012`)); ok {
			regions = append(regions, r)
			sum += r.size
		}
	}
	if sum != info.Size() {
		return nil, fmt.Errorf("%d bytes of %s are mapped, not %d", sum, path, info.Size())
	}
	return regions, nil
}

// parse reads a line of /proc/PID/maps (proc_pid_maps(5)). ok says whether it is a private mapping of path.
func parse(line, path string) (r region, ok bool) {
	f := strings.SplitN(strings.TrimRight(line, "\n"), " ", 6)
	if len(f) < 6 || strings.TrimLeft(f[5], " ") != path || !strings.HasSuffix(f[1], "p") {
		return r, false
	}
	from, to, _ := strings.Cut(f[0], "-")
	start, err1 := strconv.ParseInt(from, 16, 64)
	end, err2 := strconv.ParseInt(to, 16, 64)
	offset, err3 := strconv.ParseInt(f[2], 16, 64)
	return region{start, end - start, offset}, errors.Join(err1, err2, err3) == nil
}

type copier struct {
	ctx             context.Context
	pagemap, memory *os.File
	to              *os.File
	buffer          []byte
}

// region copies what was changed in a region.
func (c *copier) region(r region) error {
	entries := make([]byte, 1<<16)
	for done := int64(0); done < r.size; {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		n := min(r.size-done, int64(len(entries)/8*pageSize))
		part := entries[:n/pageSize*8]
		if _, err := c.pagemap.ReadAt(part, (r.address+done)/pageSize*8); err != nil {
			return err
		}
		err := eachRun(part, func(start, end int64) error {
			return c.run(r.address+done+start, r.offset+done+start, end-start)
		})
		if err != nil {
			return err
		}
		done += n
	}
	return nil
}

// eachRun calls use for each run of changed pages, with its bytes [start, end) from the first entry's page on.
func eachRun(entries []byte, use func(start, end int64) error) error {
	start := int64(-1)
	for at := 0; at <= len(entries); at += 8 {
		here := int64(at / 8 * pageSize)
		switch changed := at < len(entries) && isChanged(binary.NativeEndian.Uint64(entries[at:])); {
		case changed && start < 0:
			start = here
		case !changed && start >= 0:
			if err := use(start, here); err != nil {
				return err
			}
			start = -1
		}
	}
	return nil
}

func isChanged(entry uint64) bool { return entry&(inMemory|swapped) != 0 && entry&ofFile == 0 }

// run copies size bytes of the process's memory to the file. Pages that have become zero become holes.
func (c *copier) run(address, offset, size int64) error {
	for size > 0 {
		part := c.buffer[:min(size, maxRun)]
		if _, err := io.ReadFull(io.NewSectionReader(c.memory, address, int64(len(part))), part); err != nil {
			return err
		}
		if err := sparse.Write(c.to, part, offset); err != nil {
			return err
		}
		address, offset, size = address+int64(len(part)), offset+int64(len(part)), size-int64(len(part))
	}
	return nil
}
