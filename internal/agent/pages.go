package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

const (
	pageSize = 4 << 10
	hugePage = 2 << 20
	// What /proc/self/pagemap says of a page (Documentation/admin-guide/mm/pagemap.rst).
	pagePresent = 1 << 63
	pageFrame   = 1<<55 - 1
	// io_uring_register(2)
	registerBuffers = 0
)

// sharedPages makes the memory that the host writes payloads to. Its pages must never
// move, and what the kernel has a long-term pin on does not: buffers that are registered
// with an io_uring are pinned until it is closed, which is never.
func sharedPages() (*guest.Pages, error) {
	mem, err := unix.Mmap(-1, 0, guest.SharedSize+2*hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("making memory to share with the host: %w", err)
	}
	p, err := pin(aligned(mem))
	if err != nil {
		unix.Munmap(mem)
		return nil, fmt.Errorf("making memory to share with the host: %w", err)
	}
	return p, nil
}

// aligned is the part of mem that begins with a huge page, which costs one fault.
func aligned(mem []byte) []byte {
	skip := -uintptr(unsafe.Pointer(&mem[0])) & (hugePage - 1)
	mem = mem[skip:]
	unix.Madvise(mem[:len(mem)/hugePage*hugePage], unix.MADV_HUGEPAGE) // without, it is slower once
	unix.Madvise(mem, unix.MADV_DONTFORK)
	return mem[:guest.SharedSize:guest.SharedSize]
}

func pin(mem []byte) (*guest.Pages, error) {
	var params [120]byte // struct io_uring_params
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	unix.CloseOnExec(int(ring))
	vector := unix.Iovec{Base: &mem[0]}
	vector.SetLen(len(mem))
	_, _, errno = unix.Syscall6(unix.SYS_IO_URING_REGISTER, ring, registerBuffers, uintptr(unsafe.Pointer(&vector)), 1, 0, 0)
	if errno != 0 {
		unix.Close(int(ring))
		return nil, os.NewSyscallError("io_uring_register", errno)
	}
	addresses, err := physical(mem)
	if err != nil {
		unix.Close(int(ring))
		return nil, err
	}
	return &guest.Pages{Memory: mem, Addresses: addresses}, nil
}

// physical returns the address of each page of mem, which begins with one.
func physical(mem []byte) ([]uint64, error) {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries := make([]byte, 8*len(mem)/pageSize)
	if _, err := f.ReadAt(entries, int64(uintptr(unsafe.Pointer(&mem[0]))/pageSize*8)); err != nil {
		return nil, err
	}
	addresses := make([]uint64, len(mem)/pageSize)
	for i := range addresses {
		e := binary.NativeEndian.Uint64(entries[8*i:])
		if e&pagePresent == 0 || e&pageFrame == 0 {
			return nil, errors.New("the kernel does not say where the pages are")
		}
		addresses[i] = e & pageFrame * pageSize
	}
	return addresses, nil
}
