// Package disk makes a VM's own writable disk: a sparse file with an empty ext4 file system. It
// writes the file system directly, which takes milliseconds for any size and needs no privileges.
// It must not know which VM a disk is for.
package disk

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"banger"
	"banger/internal/ext4"
)

// Create makes a disk of size bytes at path, which must not exist. It rounds size up to whole MiB.
// If it fails, nothing is left.
func Create(path string, size int64) (err error) {
	const mib = 1 << 20
	size = (size + mib - 1) / mib * mib
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(path)
		}
		if errors.Is(err, syscall.ENOSPC) {
			err = banger.Errorf(banger.CodeNoSpace, "no space left for the VM's disk in %s", filepath.Dir(path))
		}
	}()
	// Programs that ask the kernel for whole seconds, such as e2fsck, see its clock of the last tick, which is up to
	// 10 ms behind time.Now. A file system made in that moment would seem to be written in the future.
	now := time.Now().Add(-time.Second)
	opts := ext4.Options{Size: size, Journal: true, Label: "disk", Time: now}
	rand.Read(opts.UUID[:])
	rand.Read(opts.HashSeed[:])
	w, err := ext4.New(f, opts)
	if err != nil {
		return err
	}
	root := &ext4.Node{Mode: syscall.S_IFDIR | 0o755, Mtime: now}
	if err := w.Finish(root); err != nil {
		return err
	}
	return f.Sync()
}
