// Package untrusted opens, replaces and removes files in directories that an untrusted process may write to, such as
// those of a VMM that a guest may control. It follows no symlink in such a directory, opens only regular files with
// one name, never waits for a pipe, and bounds what it reads.
//
// The parent of such a directory must belong to us. The package must not know what the files are for.
package untrusted

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Open opens a regular file as os.OpenFile does. A new file gets exactly the mode perm. Open rejects a file with a
// second name, because it may belong to somebody else.
func Open(path string, flag int, perm os.FileMode) (*os.File, error) {
	if flag&os.O_TRUNC != 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("what is there must not be truncated: use Create")}
	}
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, perm)
	switch {
	// These are a symlink; a pipe or socket; a directory.
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO), errors.Is(err, unix.EISDIR):
		return nil, notRegular(path)
	case err != nil:
		return nil, err
	}
	if err := checkRegular(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func checkRegular(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return notRegular(f.Name())
	case st.Nlink > 1:
		return &fs.PathError{Op: "open", Path: f.Name(), Err: errors.New("the file has another name elsewhere")}
	}
	return nil
}

// TakeOver gives an open file to root, if the caller is root, and then the mode perm, durably. What others have open of
// it stays open.
func TakeOver(f *os.File, perm os.FileMode) error {
	if os.Geteuid() == 0 {
		if err := f.Chown(0, 0); err != nil {
			return err
		}
	}
	return errors.Join(f.Chmod(perm), f.Sync())
}

// ErrNotRegular means that something other than a regular file has the name of a file.
var ErrNotRegular = errors.New("it is not a regular file")

func notRegular(path string) error {
	return &fs.PathError{Op: "open", Path: path, Err: ErrNotRegular}
}

// ReadFile reads a regular file of at most limit bytes.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := Open(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("the file has more than %d bytes", limit)}
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

// Create makes a file with exactly the mode perm. It replaces whatever has that name.
func Create(path string, perm os.FileMode) (*os.File, error) {
	if err := RemoveAll(path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, perm)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(perm); err != nil { // the umask may have removed bits
		f.Close()
		return nil, err
	}
	return f, nil
}

// WriteFile is like Create, and writes data to the file.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
