// Package reserve holds back some space of a disk. When the disk is full, this space is needed to write the changes
// that free space. The package must not know what is written.
package reserve

import (
	"errors"
	"io/fs"
	"os"
	"sync"

	"banger"

	"golang.org/x/sys/unix"
)

const (
	// Size is how many bytes are held back if there is enough space. It suffices for the log of a database and some
	// files.
	Size = 16 << 20
	// least is the minimum number of bytes that is worth holding back.
	least = 4 << 20
	// margin is how many bytes must be free besides those held back. With less, the disk counts as full.
	margin = 1 << 20
)

// File is a file that takes up space until the space is needed. Its methods may be called concurrently.
type File struct {
	path string
	mu   sync.Mutex
}

// At returns the reserve at path. Fill makes the file.
func At(path string) *File { return &File{path: path} }

// Fill takes up space again, as far as there is some. An error means that nothing, or too little, is held back.
func (f *File) Fill() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &st); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	var have unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &have); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	size := min(Size, have.Blocks*512+int64(st.Bavail)*st.Bsize-margin)
	switch {
	case have.Blocks*512 >= size && size >= least:
		return nil
	case size < least:
		return os.NewSyscallError("fallocate", unix.ENOSPC)
	}
	if err := unix.Fallocate(int(file.Fd()), 0, 0, size); err != nil {
		os.Remove(f.path)
		return os.NewSyscallError("fallocate", err)
	}
	return nil
}

// Retry runs op. If the disk is full, it releases the space and runs op again. A nil File has nothing to release.
func (f *File) Retry(op func() error) error {
	err := op()
	if IsFull(err) && f != nil && f.Release() {
		err = op()
	}
	return err
}

// Refill is like Fill, for a disk that may still be full. It ignores an error, because the next call tries again. A
// nil File holds nothing.
func (f *File) Refill() {
	if f != nil {
		f.Fill()
	}
}

// IsFull reports whether err is that of a full disk or of a user's full quota.
func IsFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// Explain gives the error of a full disk, met in dir, its code. It returns other errors unchanged.
func Explain(err error, dir string) error {
	if IsFull(err) {
		return banger.Errorf(banger.CodeNoSpace, "no space left in %s: %w", dir, err).WithHint("free some: banger prune")
	}
	return err
}

// Release releases the space, and reports whether there was some.
func (f *File) Release() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Lstat(f.path)
	return err == nil && os.Remove(f.path) == nil && info.Size() > 0
}

// ReleaseIfFull releases the space if the disk is full, and reports whether it did.
func (f *File) ReleaseIfFull() (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(f.path, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return false, err
	}
	if int64(st.Bavail)*st.Bsize >= margin {
		return false, nil
	}
	return f.Release(), nil
}
