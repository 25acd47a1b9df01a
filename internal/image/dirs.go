package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/blob"
)

// makeDirs makes the store's directories. The directory of an image is accessible only to its owner, because the
// image may be private. The directories above it can be traversed by the user under which apt downloads (recipe.go).
func makeDirs(dir string) error {
	all := filepath.Join(dir, "sha256")
	err := os.MkdirAll(all, 0o711)
	for _, d := range []string{dir, all} {
		err = errors.Join(err, os.Chmod(d, 0o711))
	}
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(all)
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, os.Chmod(filepath.Join(all, e.Name()), 0o700))
		}
	}
	for _, file := range []string{refsFile, stopFile} {
		if cerr := os.Chmod(filepath.Join(dir, file), 0o600); !errors.Is(cerr, fs.ErrNotExist) {
			err = errors.Join(err, cerr)
		}
	}
	return err
}

// removeUnfinished removes unfinished images that a killed process left in the store in dir.
func removeUnfinished(dir string) error {
	all := filepath.Join(dir, "sha256")
	entries, err := os.ReadDir(all)
	err = errors.Join(err, blob.RemoveHalves(dir))
	for _, e := range entries {
		at := filepath.Join(all, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), tmpPrefix):
			err = errors.Join(err, os.RemoveAll(at))
		case e.IsDir():
			err = errors.Join(err, blob.RemoveHalves(at), os.RemoveAll(filepath.Join(at, copyFile)))
		}
	}
	return err
}
