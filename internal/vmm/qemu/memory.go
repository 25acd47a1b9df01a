package qemu

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger/internal/untrusted"
	"banger/internal/vmm"
)

// openMemory creates the file that holds the guest's memory, which is on no disk (memfd_create(2)),
// or opens the memory file of a snapshot. The guest changes a created file, and a snapshot copies
// it. The file of a snapshot is mapped privately, but QEMU requires that it may write to it.
func openMemory(c vmm.Config) (*os.File, error) {
	if c.Restore != "" {
		return untrusted.Open(filepath.Join(c.Restore, vmm.SnapshotRAM), os.O_RDWR, 0)
	}
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("guest", flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("guest", flags)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "the guest's memory")
	if err = f.Truncate(int64(c.MemoryMiB) << 20); err == nil {
		// The size is sealed: otherwise a process that maps the file could be killed for an access beyond
		// its end.
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, os.NewSyscallError("making the memory", err)
	}
	return f, nil
}
