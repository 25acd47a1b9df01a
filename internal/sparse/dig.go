package sparse

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	digPiece = 1 << 20 // bytes that Dig reads at once
	digBlock = 4 << 10 // bytes of the smallest hole, which is a block of most file systems
)

// Dig makes holes of the blocks of f, open for reading and writing, that have only zeros. The content stays the same.
// It does nothing where the file system has no holes, and ends early with the error of ctx.
func Dig(ctx context.Context, f *os.File) error {
	piece, zeros := make([]byte, digPiece), make([]byte, digPiece)
	return Each(f, func(start, end int64) error {
		for at := start; at < end; at += digPiece {
			if err := ctx.Err(); err != nil {
				return err
			}
			part := piece[:min(digPiece, end-at)]
			if _, err := io.ReadFull(io.NewSectionReader(f, at, int64(len(part))), part); err != nil {
				return err
			}
			if err := digIn(f, part, zeros, at); err != nil {
				return err
			}
		}
		return nil
	})
}

// digIn makes the holes of a part of a file, which begins at the offset at.
func digIn(f *os.File, part, zeros []byte, at int64) error {
	hole := 0 // bytes of zeros before the block
	for from := 0; from <= len(part); from += digBlock {
		block := part[min(from, len(part)):min(from+digBlock, len(part))]
		if len(block) > 0 && bytes.Equal(block, zeros[:len(block)]) {
			hole += len(block)
			continue
		}
		if hole == 0 {
			continue
		}
		if err := Punch(f, at+int64(from-hole), int64(hole)); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
		hole = 0
	}
	return nil
}

// Punch makes a hole of n bytes at an offset of f: the file has zeros there, and takes no room for them. It returns
// EOPNOTSUPP if the file system cannot do that.
func Punch(f *os.File, offset, n int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, n)
	return os.NewSyscallError("fallocate", err)
}
