package qcow2

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Raw is a disk without an overlay as a base. It knows the holes of its file.
type Raw struct{ *os.File }

// next implements seeker.
func (r Raw) next(at int64) (to int64, has bool, err error) {
	data, err := unix.Seek(int(r.Fd()), at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, syscall.ENXIO): // there is none up to the end
		return 1<<63 - 1, false, nil
	case err != nil:
		return at, true, nil // the file system knows no holes
	}
	return data, data == at, nil
}
