package qemu

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"banger/internal/sparse"
	"banger/internal/vmm"
)

// openMemory opens the memory file of a snapshot, if the VM maps that. QEMU requires that it may write to the file, but
// does not; the memory of a shared snapshot is sealed, so that nobody can. Otherwise openMemory creates a file that is
// on no disk (memfd_create(2)). The guest changes it, and it has the memory of the snapshot if there is one.
func openMemory(ctx context.Context, c vmm.Config, maps bool) (*os.File, error) {
	if maps {
		return vmm.MemoryOf(c, os.O_RDWR)
	}
	f, err := newMemory(int64(c.MemoryMiB) << 20)
	if err != nil || c.Restore == "" {
		return f, err
	}
	from, err := vmm.MemoryOf(c, os.O_RDONLY)
	if err == nil {
		err = sparse.Copy(ctx, f, from)
		from.Close()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// newMemory creates a memory of zeros. Its size in bytes is sealed: otherwise a process that maps the file could be
// killed for an access beyond its end.
func newMemory(size int64) (*os.File, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("guest", flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("guest", flags)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "the guest's memory")
	if err = f.Truncate(size); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, os.NewSyscallError("making the memory", err)
	}
	return f, nil
}
