// Package pax reads and writes the entries of a tar in the format POSIX pax. Files with holes are in GNU tar's sparse
// format 1.0. What is read is hostile: all sizes and numbers are bounded.
//
// The package must not know of a file system: names are texts, and data are bytes that it passes on.
package pax

import (
	"banger"
)

// BlockSize is the size of a block in bytes. Headers and data are whole blocks.
const BlockSize = 512

// Limits on an archive.
const (
	maxName   = banger.MaxPath // bytes of an entry's name
	maxPAX    = 1 << 20        // bytes of an entry's pax records
	maxSparse = 16 << 10       // pieces of a file with holes
)

// Prefixes of pax records.
const (
	xattrRecord  = "SCHILY.xattr."
	sparseRecord = "GNU.sparse."
	// Encode adds this comment (pax, IEEE Std 1003.1) to a file that has several names. Other programs ignore it.
	linksComment = "banger links="
)

// Refuse returns the error for an entry that breaks a rule.
func Refuse(name, format string, args ...any) *banger.Error {
	return banger.Errorf(banger.CodeInvalid, "the archive's entry %.300q "+format, append([]any{name}, args...)...)
}
