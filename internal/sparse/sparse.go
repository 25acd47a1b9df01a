// Package sparse finds the data and the holes of files, and copies files without their holes. It must not know what
// is in a file.
package sparse

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Next returns where the file fd of the given size has data next, from the offset at on: the bytes [start, end). It
// returns io.EOF if only a hole follows or the file changes meanwhile, and EINVAL (lseek(2)) if the file system does
// not support the question.
func Next(fd int, at, size int64) (start, end int64, err error) {
	return next(func(offset int64, whence int) (int64, error) { return unix.Seek(fd, offset, whence) }, at, size)
}

func next(seek func(offset int64, whence int) (int64, error), at, size int64) (start, end int64, err error) {
	if at >= size {
		return 0, 0, io.EOF
	}
	start, err = seek(at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) || err == nil && start >= size {
		return 0, 0, io.EOF
	}
	if err != nil {
		return 0, 0, err
	}
	end, err = seek(start, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) || err == nil && end > size {
		end, err = size, nil
	}
	if err == nil && end <= start {
		err = io.EOF
	}
	return start, end, err
}

// Each calls use for each piece of f that has data, in their order, with the piece's bytes [start, end). It changes
// the offset of f.
func Each(f *os.File, use func(start, end int64) error) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	for at := int64(0); ; {
		start, end, err := next(f.Seek, at, info.Size()) // f may be closed meanwhile
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := use(start, end); err != nil {
			return err
		}
		at = end
	}
}

// Copy makes dst, which is empty, a copy of src: by reference if the file system can do that, otherwise without the
// holes. It ends early with the context's error. It changes the offsets of both files. The caller syncs and closes
// dst.
func Copy(ctx context.Context, dst, src *os.File) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if clone(dst, src) == nil {
		return nil
	}
	if err := dst.Truncate(info.Size()); err != nil {
		return err
	}
	return Each(src, func(start, end int64) error { return copyRange(ctx, dst, src, start, end) })
}

// clone makes dst share the data of src (ioctl_ficlonerange(2)). Either file may be closed meanwhile.
func clone(dst, src *os.File) error {
	to, err := dst.SyscallConn()
	if err != nil {
		return err
	}
	from, err := src.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	closed := to.Control(func(to uintptr) {
		if err := from.Control(func(from uintptr) { failed = unix.IoctlFileClone(int(to), int(from)) }); err != nil {
			failed = err
		}
	})
	return cmp.Or(closed, failed)
}

// copyRange copies the bytes [start, end) in pieces and checks ctx between them.
func copyRange(ctx context.Context, dst, src *os.File, start, end int64) error {
	if _, err := dst.Seek(start, io.SeekStart); err != nil {
		return err
	}
	if _, err := src.Seek(start, io.SeekStart); err != nil {
		return err
	}
	for left := end - start; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyN(dst, src, min(left, 16<<20)) // uses copy_file_range(2)
		if err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// Allocated returns how many bytes a file occupies on the host, which is less than its size if it has holes.
func Allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
