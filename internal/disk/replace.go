package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"banger/internal/blob"
	"banger/internal/sparse"
	"banger/internal/untrusted"
)

// errUsed means that a disk is not replaced, because it may hold data.
var errUsed = errors.New("a guest has used the disk")

// Replace replaces the disk at path, which Create has made and no guest has used, by a copy of from, durably. After an
// error the old disk is there.
func Replace(path string, from *os.File) (err error) {
	if err := checkUnused(path); err != nil {
		return fmt.Errorf("replacing the disk %s: %w", path, err)
	}
	next := path + ".next" // may be there, of a process that was killed
	to, err := untrusted.Create(next, 0o600)
	if err != nil {
		return err
	}
	err = sparse.Copy(context.Background(), to, from)
	if err == nil {
		err = to.Sync()
	}
	if err = errors.Join(err, to.Close()); err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		os.Remove(next)
		return fmt.Errorf("replacing the disk %s: %w", path, err)
	}
	return blob.Sync(filepath.Dir(path))
}

// checkUnused returns an error unless the file system on a disk was never mounted. The kernel writes the time of a
// mount into the superblock (ext4 disk layout, s_mtime).
func checkUnused(path string) error {
	const mountTime = 1024 + 0x2C
	f, err := untrusted.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var field [4]byte
	if _, err := f.ReadAt(field[:], mountTime); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(field[:]) != 0 {
		return errUsed
	}
	return nil
}
