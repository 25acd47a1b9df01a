// Package archive converts files into a tar and a tar into files. It is used at both ends of `banger cp`: in the
// guest's agent and in the user's CLI. The package pax has the format of the tar, in which holes are not sent.
//
// What is extracted is hostile: nothing outside the destination is ever written, whatever an archive contains and
// whatever happens in the destination meanwhile (see Extract). Memory does not grow with the number of entries.
//
// The package must not know who sends or receives: no protocol, no VM, no HTTP.
package archive

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"banger"
)

// Limits on an archive.
const (
	maxName  = banger.MaxPath // bytes of an entry's name
	maxDepth = 1000           // directories above an entry
	maxLinks = 1 << 20        // files that will get more names
	maxMade  = 1 << 22        // files of a foreign archive that hard links may refer to
)

// procPath returns a path of an open descriptor, for calls that need a path.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// failure returns a system error with the name of the entry.
func failure(doing, name string, err error) error {
	if e, ok := errors.AsType[*banger.Error](err); ok {
		return e
	}
	code := banger.CodeInternal
	switch {
	case errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS):
		code = banger.CodeDenied
	case errors.Is(err, os.ErrNotExist):
		code = banger.CodeNotFound
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		code = banger.CodeNoSpace
	case errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) ||
		errors.Is(err, unix.EFBIG):
		code = banger.CodeInvalid
	}
	return banger.Errorf(code, "%s %.300q: %w", doing, name, err)
}
