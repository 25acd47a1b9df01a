package server

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/shim"
	"banger/internal/untrusted"
	vmmjail "banger/internal/vmm/jail"
)

// jail is the directory into which the VMM is put.
type jail struct{ *shim.Jail }

// become gives the VM's directories to the VM's user and permanently gives up root in all threads. Before that, no
// other user could make anything in the places where root writes.
func (j jail) become(dirs ...string) error {
	for _, dir := range dirs {
		if err := untrusted.Give(dir, j.UID, j.GID); err != nil {
			return err
		}
	}
	if err := syscall.Setgroups(nil); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setgid(j.GID); err != nil {
		return os.NewSyscallError("setgid", err)
	}
	return os.NewSyscallError("setuid", syscall.Setuid(j.UID))
}

// tapOwner returns the user for whom a VMM's tap is made.
func (s plan) tapOwner() int {
	if s.Jail != nil {
		return s.Jail.UID
	}
	return os.Geteuid()
}

// roots returns names of the directories with the sockets of a jailed VMM, whatever its program is called. The names
// stay valid after the caller has become another user, until it ends.
func (j jail) roots(id string) (names []string, err error) {
	for _, dir := range vmmjail.Base(j.Dir).Roots(id) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: dir, Err: err}
		}
		names = append(names, shim.Descriptor(fd))
	}
	return names, nil
}
