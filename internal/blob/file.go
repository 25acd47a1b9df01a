// Package blob keeps files that are complete or absent, whatever happens while they are written.
// The stores of images and kernels are built on it.
//
// It must not know what is in a file.
package blob

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// WriteFile replaces the file at path with what write writes, durably: after a crash at any
// instant, the old file or the new one is there. The new file has mode. Two calls for the same path
// must not run at the same time. On an error, of write or of the file system, the old file stays.
func WriteFile(path string, mode fs.FileMode, write func(io.Writer) error) error {
	tmp := path + tmpSuffix
	if err := writeAndSync(tmp, mode, write); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return Sync(filepath.Dir(path))
}

// RemoveHalves removes what interrupted calls of WriteFile have left in dir. No WriteFile may be
// running there.
func RemoveHalves(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), tmpSuffix) && !e.IsDir() {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// tmpSuffix is the end of the name of a file that is being written.
const tmpSuffix = ".tmp"

func writeAndSync(path string, mode fs.FileMode, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(mode); err != nil { // independent of the umask
		return err
	}
	w := bufio.NewWriterSize(f, 64<<10)
	if err := write(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Sync()
}

// WriteJSON writes v as indented JSON with WriteFile. Only this user can read the file.
func WriteJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(path, 0o600, func(w io.Writer) error { _, err := w.Write(data); return err })
}

// WriteBack starts to write a range of f, in bytes, to the disk and does not wait, so that a Sync
// at the end has little left to do. It is only a hint (sync_file_range(2)) and reports no errors.
func WriteBack(f *os.File, offset, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, n, unix.SYNC_FILE_RANGE_WRITE)
}

// Sync makes the content of a file or a directory durable (fsync(2)).
func Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
