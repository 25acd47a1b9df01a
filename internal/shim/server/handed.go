package server

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"banger/internal/shim"
	"banger/internal/vmm"
)

// Descriptors of a shim, whose working directory is the VM's own. With them, the shim needs no right to any directory
// above those of the VM, and its VMM needs no right to any directory. After them come the kernel, the initramfs and
// the disks, the files of a template, then the tap of a VM on a bridge, and the forwards and the ports of the VM's own
// address.
const (
	fdReady = 3 + iota // reports that the VM runs
	fdState            // the working directory
	fdRun              // the directory of sockets
	fdFiles
)

// plan is the spec of a shim as its process sees it.
type plan struct{ shim.Spec }

// firstSocket is the first descriptor after the files.
func (s plan) firstSocket() int {
	if s.VM.Shared {
		return firstSaved(s.VM) + vmm.SavedFiles
	}
	return firstSaved(s.VM)
}

// firstSaved is the first descriptor after the kernel, the initramfs and the files of the disks.
func firstSaved(c vmm.Config) int { return fdFiles + 2 + c.DriveFiles() }

// handed returns the number of descriptors.
func (s plan) handed() int {
	last := s.firstSocket()
	if s.Network != nil {
		last = s.firstForward() + len(s.Network.Forwards) + len(s.Network.Own)
	}
	return last - fdReady
}

// handedTo returns c with the files that the shim was handed.
func handedTo(c vmm.Config) vmm.Config {
	fd := fdFiles - 1
	return c.WithFiles(func(path string) *os.File { fd++; return os.NewFile(uintptr(fd), path) })
}

// CloseInherited closes all descriptors above stdio that this process has inherited, except the first keep ones. It
// marks those to be closed on execve(2). Descriptors that this process has opened itself have that mark already, so a
// descriptor without it is inherited.
func CloseInherited(keep int) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("closing the caller's descriptors: %w", err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		if fd > 2+keep {
			unix.Close(fd)
		} else {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
