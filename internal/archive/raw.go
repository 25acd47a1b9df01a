package archive

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The functions in this file are those of package unix for the calls that an extraction makes for every file. They do
// not tell Go's scheduler that a call begins. Otherwise its monitor wakes up every 20 µs while the calls go on, to give
// the processor to another goroutine, and in an emulated guest that costs more than the calls: 20,000 files
// took 21.9 s, and take 9.9 s. While a call waits, other goroutines may wait too; so large writes are made otherwise.

// largestRaw is the largest write that is made so, in bytes.
const largestRaw = 64 << 10

func raw(call, a, b, c, d, e uintptr) (uintptr, error) {
	r, _, errno := unix.RawSyscall6(call, a, b, c, d, e, 0)
	if errno != 0 {
		return r, errno
	}
	return r, nil
}

// openAt is openat(2).
func openAt(dir int, name string, flags int, mode uint32) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return -1, err
	}
	fd, err := raw(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(p)), uintptr(flags), uintptr(mode), 0)
	return int(fd), err
}

// closeFD is close(2).
func closeFD(fd int) error {
	_, err := raw(unix.SYS_CLOSE, uintptr(fd), 0, 0, 0, 0)
	return err
}

// pwrite is pwrite(2).
func pwrite(fd int, b []byte, at int64) (int, error) {
	if len(b) > largestRaw {
		return unix.Pwrite(fd, b, at)
	}
	p := unsafe.Pointer(unsafe.SliceData(b))
	n, err := raw(unix.SYS_PWRITE64, uintptr(fd), uintptr(p), uintptr(len(b)), uintptr(at), 0)
	return int(n), err
}

// nothing is the empty path, with which a call is about the descriptor itself.
var nothing [1]byte

// changeOwner sets the owner of what is open.
func changeOwner(fd int, uid, gid uint32) error {
	_, err := raw(unix.SYS_FCHOWNAT, uintptr(fd), uintptr(unsafe.Pointer(&nothing)), uintptr(uid), uintptr(gid),
		unix.AT_EMPTY_PATH)
	return err
}

// changeMode is fchmod(2).
func changeMode(fd int, mode uint32) error {
	_, err := raw(unix.SYS_FCHMOD, uintptr(fd), uintptr(mode), 0, 0, 0)
	return err
}

// changeTimes sets the times of what is open: of the last access, and of the last change of the content.
func changeTimes(fd int, times *[2]unix.Timespec) error {
	_, err := raw(unix.SYS_UTIMENSAT, uintptr(fd), uintptr(unsafe.Pointer(&nothing)), uintptr(unsafe.Pointer(times)),
		unix.AT_EMPTY_PATH, 0)
	return err
}

// rename gives what is called from in dir the name to.
func rename(dir int, from, to string) error {
	p, err := unix.BytePtrFromString(from)
	if err != nil {
		return err
	}
	q, err := unix.BytePtrFromString(to)
	if err != nil {
		return err
	}
	_, err = raw(unix.SYS_RENAMEAT, uintptr(dir), uintptr(unsafe.Pointer(p)), uintptr(dir), uintptr(unsafe.Pointer(q)), 0)
	return err
}
