package image

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/blob"
	"banger/internal/image/source"
)

// Files in the directory of an image.
const (
	rootfsFile = "rootfs.ext4"
	metaFile   = "image.json"
	copyFile   = ".copy" // is made by Promote
)

// imagesOf returns the directory of the images in the directory of a store.
func imagesOf(dir string) string { return filepath.Join(dir, "sha256") }

// makeDirs makes the store's directories. The directory of an image is accessible only to its owner, because the
// image may be private. The directories above it can be traversed by the user under which apt downloads
// (source/recipe.go).
func makeDirs(dir string) error {
	all := imagesOf(dir)
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
	for _, file := range []string{refsFile, openFile} {
		if cerr := os.Chmod(filepath.Join(dir, file), 0o600); !errors.Is(cerr, fs.ErrNotExist) {
			err = errors.Join(err, cerr)
		}
	}
	return err
}

// removeUnfinished removes unfinished images that a killed process left in the store in dir.
func removeUnfinished(dir string) error {
	all := imagesOf(dir)
	entries, err := os.ReadDir(all)
	err = errors.Join(err, blob.RemoveHalves(dir))
	for _, e := range entries {
		at := filepath.Join(all, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), source.TempPrefix):
			err = errors.Join(err, os.RemoveAll(at))
		case e.IsDir():
			err = errors.Join(err, blob.RemoveHalves(at), os.RemoveAll(filepath.Join(at, copyFile)))
		}
	}
	return err
}

// directory holds the images of a store, one directory for each. A directory appears and disappears by a rename.
type directory struct{ dir string }

// path returns the directory of an image. The digest must be valid.
func (d directory) path(digest string) string { return filepath.Join(d.dir, blob.Digits(digest)) }

// rootfs returns the path of an image's ext4 file. The digest must be valid.
func (d directory) rootfs(digest string) string {
	path := filepath.Join(d.path(digest), rootfsFile)
	if registered, err := os.Readlink(path); err == nil {
		return registered
	}
	return path
}

// get returns the image with this digest.
func (d directory) get(digest string) (banger.Image, error) {
	var img banger.Image
	if err := blob.CheckDigest(digest); err != nil {
		return img, banger.Errorf(banger.CodeInvalid, "%w", err)
	}
	data, err := os.ReadFile(filepath.Join(d.path(digest), metaFile))
	if errors.Is(err, fs.ErrNotExist) {
		return img, banger.Errorf(banger.CodeNotFound, "there is no image %s", digest).WithHint("see: banger image ls")
	}
	if err == nil {
		err = json.Unmarshal(data, &img)
	}
	return img, err
}

// all returns every image once, without references.
func (d directory) all() ([]banger.Image, error) {
	dirs, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var list []banger.Image
	for _, e := range dirs {
		img, err := d.get("sha256:" + e.Name())
		if code := banger.CodeOf(err); code == banger.CodeInvalid || code == banger.CodeNotFound {
			continue // unfinished, or just removed
		}
		if err != nil {
			return nil, err
		}
		list = append(list, img)
	}
	return list, nil
}

// sameRootfs returns an image with the same file system as img would have, or nil.
func (d directory) sameRootfs(img *banger.Image) (*banger.Image, error) {
	all, err := d.all()
	for _, other := range all {
		if other.ConfigDigest == img.ConfigDigest && other.Converter == img.Converter {
			return &other, err
		}
	}
	return nil, err
}

// temp makes a temporary directory, which can become that of an image.
func (d directory) temp() (string, error) { return os.MkdirTemp(d.dir, source.TempPrefix+"*") }

// publish completes a temporary directory with img and makes it the image's directory. If there is one already, the
// error is fs.ErrExist or ENOTEMPTY.
func (d directory) publish(tmp string, img banger.Image) error {
	if err := blob.WriteJSON(filepath.Join(tmp, metaFile), img); err != nil {
		return err
	}
	if err := os.Rename(tmp, d.path(img.Digest)); err != nil {
		return err
	}
	return blob.Sync(d.dir)
}

// take takes an image out of the directory at once, and returns a directory that the caller removes.
func (d directory) take(digest string) (rest string, err error) {
	rest = filepath.Join(d.dir, source.TempPrefix+"rm-"+blob.Digits(digest))
	if err := os.Rename(d.path(digest), rest); err != nil {
		return "", err
	}
	return rest, blob.Sync(d.dir) // otherwise the image could come back after a power cut
}

// replaceRootfs makes fresh the rootfs of an image, durably. link is the name of a temporary link to it.
func (d directory) replaceRootfs(digest, fresh, link string) error {
	if err := os.Link(fresh, link); err != nil {
		return err
	}
	if err := os.Rename(link, d.rootfs(digest)); err != nil {
		return err
	}
	return blob.Sync(d.path(digest))
}
