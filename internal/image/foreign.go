package image

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/blob"
)

// Register makes an image of an ext4 file that belongs to somebody else. The store keeps only a
// symlink to the file. The image's digest is that of the file's content. The file must not change
// afterwards: if its size or time has changed, the image is no longer used.
func (s *Store) Register(ctx context.Context, target, rootfs, kernel string) (banger.Image, error) {
	name, err := newName(target)
	if err != nil {
		return banger.Image{}, err
	}
	m := s.begin("the registration of " + name)
	defer m.end()
	img := banger.Image{Reference: name, Kernel: kernel, Foreign: rootfs, Platform: "linux/" + runtime.GOARCH,
		PulledAt: time.Now().UTC(), Config: banger.ImageConfig{Cmd: []string{"/bin/sh"}, Env: []string{recipePath}}}
	f, err := openForeign(rootfs, &img)
	if err != nil {
		return banger.Image{}, err
	}
	defer f.Close()
	if img.Digest, err = hashSparse(ctx, f); err != nil {
		return banger.Image{}, hostError(ctx, rootfs, err)
	}
	m.hold(img.Digest)
	if _, err := s.Get(img.Digest); err != nil {
		if err := s.publishForeign(img); err != nil {
			return banger.Image{}, err
		}
	}
	return img, s.refer(name, reference{Digest: img.Digest})
}

// openForeign opens a file that is to be a rootfs, and records its size and time in img.
func openForeign(path string, img *banger.Image) (*os.File, error) {
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
		err = bad("it is no regular file")
	default:
		// The superblock of ext4 starts at 1024; s_magic is at 0x38 of it.
		if _, rerr := f.ReadAt(magic[:], 1024+0x38); rerr != nil || binary.LittleEndian.Uint16(magic[:]) != 0xEF53 {
			err = bad("it holds no ext4")
		}
	}
	if err == nil {
		img.Created = info.ModTime().UTC()
		img.ForeignSize = info.Size()
		img.Size, err = allocated(f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// eachPiece calls use for each piece of a file that is not a hole.
func eachPiece(ctx context.Context, f *os.File, use func(at int64, piece io.Reader) error) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	for at := int64(0); at < info.Size(); {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		if at, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE); err != nil {
			return err
		}
		if err := use(data, &contextReader{ctx, io.NewSectionReader(f, data, at-data)}); err != nil {
			return err
		}
	}
	return nil
}

// hashSparse returns a digest of a file's pieces and their offsets.
func hashSparse(ctx context.Context, f *os.File) (string, error) {
	h := sha256.New()
	err := eachPiece(ctx, f, func(at int64, piece io.Reader) error {
		fmt.Fprintln(h, at)
		_, err := io.Copy(h, piece)
		return err
	})
	return digestOf(h), err
}

// publishForeign makes the directory of an image whose rootfs is a symlink.
func (s *Store) publishForeign(img banger.Image) error {
	tmp, err := os.MkdirTemp(s.tmpDir(), tmpPrefix+"*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // removes nothing after the rename
	if err := os.Symlink(img.Foreign, filepath.Join(tmp, rootfsFile)); err != nil {
		return err
	}
	if err := blob.WriteJSON(filepath.Join(tmp, metaFile), img); err != nil {
		return err
	}
	if err := os.Rename(tmp, s.path(img.Digest)); err != nil {
		return err
	}
	return blob.Sync(filepath.Dir(s.path(img.Digest)))
}

// checkForeign returns an error if a registered file has changed.
func checkForeign(img banger.Image) error {
	var now banger.Image
	f, err := openForeign(img.Foreign, &now)
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

// copyFile is the name of the copy that Promote makes in an image's directory.
const copyFile = ".copy"

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
	if err := checkForeign(img); err != nil {
		return img, err
	}
	path := filepath.Join(s.path(img.Digest), rootfsFile)
	copied := filepath.Join(filepath.Dir(path), copyFile)
	defer os.Remove(copied)
	if img.Size, err = copySparse(ctx, img.Foreign, copied); err != nil {
		return img, hostError(ctx, ref, err)
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

// copySparse copies a file without its holes, syncs the copy, and returns how many bytes the copy occupies.
func copySparse(ctx context.Context, from, to string) (int64, error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return 0, err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	if err := out.Truncate(info.Size()); err != nil {
		return 0, err
	}
	err = eachPiece(ctx, in, func(at int64, piece io.Reader) error {
		_, err := io.Copy(io.NewOffsetWriter(out, at), piece)
		return err
	})
	if err != nil {
		return 0, err
	}
	if err := out.Sync(); err != nil {
		return 0, err
	}
	return allocated(out)
}
