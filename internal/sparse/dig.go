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
	piece := make([]byte, digPiece)
	return Each(f, func(start, end int64) error {
		for at := start; at < end; at += digPiece {
			if err := ctx.Err(); err != nil {
				return err
			}
			part := piece[:min(digPiece, end-at)]
			if _, err := io.ReadFull(io.NewSectionReader(f, at, int64(len(part))), part); err != nil {
				return err
			}
			err := eachRun(part, func(run []byte, from int, zero bool) error {
				if !zero {
					return nil
				}
				err := Punch(f, at+int64(from), int64(len(run)))
				if errors.Is(err, unix.EOPNOTSUPP) {
					return nil
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Write writes data to f at an offset. It makes holes of the blocks of zeros, if the file system can.
func Write(f *os.File, data []byte, offset int64) error {
	return eachRun(data, func(run []byte, from int, zero bool) error {
		at := offset + int64(from)
		if zero && Punch(f, at, int64(len(run))) == nil {
			return nil
		}
		_, err := f.WriteAt(run, at)
		return err
	})
}

var zeros [digBlock]byte

// eachRun calls use for each run of blocks of data, with its place there. A run has only zeros, or no block of zeros.
func eachRun(data []byte, use func(run []byte, from int, zero bool) error) error {
	isZero := func(at int) bool {
		block := data[at:min(at+digBlock, len(data))]
		return bytes.Equal(block, zeros[:len(block)])
	}
	for from := 0; from < len(data); {
		zero, to := isZero(from), from+digBlock
		for to < len(data) && isZero(to) == zero {
			to += digBlock
		}
		to = min(to, len(data))
		if err := use(data[from:to], from, zero); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// Punch makes a hole of n bytes at an offset of f: the file has zeros there, and takes no room for them. It returns
// EOPNOTSUPP if the file system cannot do that.
func Punch(f *os.File, offset, n int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, n)
	return os.NewSyscallError("fallocate", err)
}
