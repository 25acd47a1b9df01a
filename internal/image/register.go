package image

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/blob"
	"banger/internal/contextio"
	"banger/internal/image/source"
	"banger/internal/sparse"
)

// Register makes an image of an ext4 file that belongs to another program. The store keeps only a
// symlink to the file. The image's digest is that of the file's content. The file must not change
// afterwards: if its size or time has changed, the image is no longer used.
func (s *Store) Register(ctx context.Context, target, rootfs, kernel string) (banger.Image, error) {
	name, err := source.NewName(target)
	if err != nil {
		return banger.Image{}, err
	}
	t := s.begin("the registration of " + name)
	defer t.end()
	img := banger.Image{
		Reference: name,
		Kernel:    kernel,
		Foreign:   rootfs,
		Platform:  "linux/" + runtime.GOARCH,
		PulledAt:  time.Now().UTC(),
		Config:    banger.ImageConfig{Cmd: []string{"/bin/sh"}, Env: []string{source.DefaultPath}},
	}
	f, err := openRegistered(rootfs, &img)
	if err != nil {
		return banger.Image{}, err
	}
	defer f.Close()
	if img.Digest, err = hashPieces(ctx, f); err != nil {
		return banger.Image{}, pullError(ctx, rootfs, err)
	}
	t.pin(img.Digest)
	if _, err := s.Get(img.Digest); err != nil {
		if err := s.images.publishLink(img); err != nil {
			return banger.Image{}, err
		}
	}
	return img, s.refer(name, reference{Digest: img.Digest})
}

// openRegistered opens a file that is to be a rootfs, and records its size and time in img.
func openRegistered(path string, img *banger.Image) (*os.File, error) {
	bad := func(why string) error {
		return banger.Errorf(banger.CodeInvalid, "%.300q cannot be a root file system: %s", path, why)
	}
	if !filepath.IsAbs(path) {
		return nil, bad("the path is not absolute")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, bad(err.Error())
	}
	info, err := f.Stat()
	var magic [2]byte
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = bad("it is not a regular file")
	default:
		// The superblock of ext4 starts at 1024; s_magic is at 0x38 of it.
		if _, rerr := f.ReadAt(magic[:], 1024+0x38); rerr != nil || binary.LittleEndian.Uint16(magic[:]) != 0xEF53 {
			err = bad("it does not contain an ext4 file system")
		}
	}
	if err == nil {
		img.Created = info.ModTime().UTC()
		img.ForeignSize = info.Size()
		img.Size = sparse.Allocated(info)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// hashPieces returns a digest of a file's data and the offsets of its pieces.
func hashPieces(ctx context.Context, f *os.File) (string, error) {
	h := sha256.New()
	err := sparse.Each(f, func(start, end int64) error {
		fmt.Fprintln(h, start)
		_, err := io.Copy(h, contextio.NewReader(ctx, io.NewSectionReader(f, start, end-start)))
		return err
	})
	return blob.DigestOf(h), err
}

// publishLink makes the directory of an image whose rootfs is a symlink.
func (d directory) publishLink(img banger.Image) error {
	tmp, err := d.temp()
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // removes nothing after the rename
	if err := os.Symlink(img.Foreign, filepath.Join(tmp, rootfsFile)); err != nil {
		return err
	}
	return d.publish(tmp, img)
}

// checkRegistered returns an error if a registered file has changed.
func checkRegistered(img banger.Image) error {
	var now banger.Image
	f, err := openRegistered(img.Foreign, &now)
	if err == nil {
		f.Close()
	}
	if err == nil && (now.ForeignSize != img.ForeignSize || !now.Created.Equal(img.Created)) {
		err = banger.Errorf(banger.CodeConflict, "%s has changed since it was registered", img.Foreign)
	}
	if err != nil {
		return banger.Errorf(banger.CodeConflict, "image %s cannot be used: %w", img.Digest, err).
			WithHint("register it again: banger image register NAME --rootfs %s", img.Foreign)
	}
	return nil
}

// Promote copies a registered file into the store, which then uses its own copy.
func (s *Store) Promote(ctx context.Context, ref string) (banger.Image, error) {
	img, err := s.Find(ref)
	if err != nil {
		return img, err
	}
	if img.Foreign == "" {
		return img, banger.Errorf(banger.CodeConflict, "image %s is in the store already", ref)
	}
	release, err := s.Pin(img.Digest, "the promotion of "+ref)
	if err != nil {
		return img, err
	}
	defer release()
	if err := checkRegistered(img); err != nil {
		return img, err
	}
	path := filepath.Join(s.images.path(img.Digest), rootfsFile)
	copied := filepath.Join(filepath.Dir(path), copyFile)
	defer os.Remove(copied)
	if img.Size, err = copyRootfs(ctx, img.Foreign, copied); err != nil {
		return img, pullError(ctx, ref, err)
	}
	// The rename is decisive; image.json is updated after it.
	if err := os.Rename(copied, path); err != nil {
		return img, err
	}
	reference := img.Reference
	img.Foreign, img.ForeignSize, img.Reference = "", 0, ""
	if err := blob.WriteJSON(filepath.Join(filepath.Dir(path), metaFile), img); err != nil {
		return img, err
	}
	img.Reference = reference
	return img, nil
}

// copyRootfs copies a file without its holes, durably, and returns how many bytes the copy occupies.
func copyRootfs(ctx context.Context, from, to string) (int64, error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	if err := sparse.Copy(ctx, out, in); err != nil {
		return 0, err
	}
	if err := out.Sync(); err != nil {
		return 0, err
	}
	info, err := out.Stat()
	if err != nil {
		return 0, err
	}
	return sparse.Allocated(info), nil
}
