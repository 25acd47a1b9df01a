// Package blob keeps files that are there whole or not at all, whatever happens
// while they are written: the store of images and kernels stands on it.
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

// WriteFile replaces the file at path by what write writes, durably: after a
// crash at any instant the old file or the new one, which has mode, is there. Two calls for the
// same path must not run at once. On an error, which is write's own or the file
// system's, the old file stays.
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

// RemoveHalves removes what a WriteFile that was cut short has left in dir. No WriteFile may be under way there.
func RemoveHalves(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), tmpSuffix) && !e.IsDir() {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// tmpSuffix ends the name of a file that is being written.
const tmpSuffix = ".tmp"

func writeAndSync(path string, mode fs.FileMode, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(mode); err != nil { // whatever the umask
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

// WriteJSON is WriteFile of v as indented JSON, for this user alone.
func WriteJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(path, 0o600, func(w io.Writer) error { _, err := w.Write(data); return err })
}

// WriteBack begins to bring a range of f, in bytes, to the disk and does not wait for
// it, so that a Sync at the end finds little left to do. It is a hint
// (sync_file_range(2)): nothing is promised and nothing can fail.
func WriteBack(f *os.File, offset, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, n, unix.SYNC_FILE_RANGE_WRITE)
}

// Sync makes what a file or a directory holds durable (fsync(2)).
func Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
