package qemu

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger/internal/untrusted"
	"banger/internal/vmm"
)

// openMemory makes the file that is the guest's memory, which lies on no disk (memfd_create(2)), or
// opens that of a snapshot. The guest changes the former, from which a snapshot is a copy. The
// latter is mapped for the VM alone, but QEMU opens no file for that that it may not write.
func openMemory(c vmm.Config) (*os.File, error) {
	if c.Restore != "" && hasRAM(c.Restore) {
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
		// Its size stays, so that nobody who maps it is killed for what is beyond its end.
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, os.NewSyscallError("making the memory", err)
	}
	return f, nil
}
