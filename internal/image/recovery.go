package image

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"banger"
	"banger/internal/blob"
	"banger/internal/image/layer"
	"banger/internal/image/source"
)

// openFile exists while a store is open. It contains the boot id of the host. If the host has
// another boot id when the store is opened, the host went down before the store was closed.
const openFile = "open.json"

// openMark is the content of openFile.
type openMark struct {
	Boot       string   `json:"boot"`
	Unverified []string `json:"doubted,omitempty"` // images that were not checked since the host went down
}

const bootIDFile = "/proc/sys/kernel/random/boot_id"

// unverified are the images whose file system was not checked since the host went down unexpectedly, with the file
// that keeps them. Its methods may be called concurrently.
type unverified struct {
	file string
	boot string // the boot id of the host

	mu      sync.Mutex
	digests map[string]bool
}

// openUnverified finds out whether the store in dir was closed properly, and notes that it is open. boot is the boot
// id of the host; "" means the kernel's.
func openUnverified(dir, boot string, images directory) (*unverified, error) {
	if boot == "" {
		id, err := os.ReadFile(bootIDFile)
		if err != nil {
			return nil, err
		}
		boot = strings.TrimSpace(string(id))
	}
	u := &unverified{file: filepath.Join(dir, openFile), boot: boot, digests: map[string]bool{}}
	data, err := os.ReadFile(u.file)
	if errors.Is(err, fs.ErrNotExist) {
		return u, u.save()
	}
	var was openMark
	if err == nil && json.Unmarshal(data, &was) != nil {
		was = openMark{} // incomplete because the host went down
	}
	if err != nil {
		return nil, err
	}
	list, err := images.all()
	if err != nil {
		return nil, err
	}
	for _, img := range list {
		if was.Boot != boot || slices.Contains(was.Unverified, img.Digest) {
			u.digests[img.Digest] = true
		}
	}
	return u, u.save()
}

// save writes the file. The caller holds u.mu, or is the only user of u.
func (u *unverified) save() error {
	m := openMark{Boot: u.boot}
	for digest := range u.digests {
		m.Unverified = append(m.Unverified, digest)
	}
	slices.Sort(m.Unverified)
	return blob.WriteJSON(u.file, m)
}

// close removes the file, unless it still names images.
func (u *unverified) close() error {
	if u.any() {
		return nil
	}
	return os.Remove(u.file)
}

// any reports whether there are such images.
func (u *unverified) any() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.digests) > 0
}

// has reports whether an image was not checked.
func (u *unverified) has(digest string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.digests[digest]
}

// remove notes that an image was checked.
func (u *unverified) remove(digest string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.digests, digest)
	return u.save()
}

// Ready makes sure that an image's rootfs has the bytes that were written. After the host went down
// unexpectedly, it makes the rootfs again from the layers, which it hashes. It returns an error of
// CodeBadImage if a layer is damaged; a pull repairs that.
func (s *Store) Ready(ctx context.Context, digest string, emit banger.Emit) error {
	img, err := s.Get(digest)
	if err != nil {
		return err
	}
	if path := s.RootfsPath(digest); path == img.Foreign {
		return checkRegistered(img)
	}
	if !s.unverified.has(digest) {
		return nil
	}
	return s.repair(ctx, img, fromStore(img), emit)
}

// fromStore returns a stored image as one that can be converted again from its blobs.
func fromStore(img banger.Image) *source.Image {
	src := &source.Image{Content: damaged{img}, Digest: img.Digest, ConfigDigest: img.ConfigDigest}
	for i, b := range img.Blobs {
		src.Layers = append(src.Layers,
			layer.Descriptor{Digest: b.Digest, DiffID: img.Layers[i], Size: b.Size, MediaType: b.MediaType})
	}
	return src
}

// damaged is the content of an image whose blobs were stored. It is asked for a blob only if the stored one turned out
// to be damaged, so all its methods return an error.
type damaged struct{ img banger.Image }

func (d damaged) Manifest(context.Context, string) ([]byte, error) { return nil, d.err() }
func (d damaged) Blob(context.Context, string, int64) (io.ReadCloser, error) {
	return nil, d.err()
}
func (d damaged) Close() {}

func (d damaged) err() error {
	return blob.Permanent(banger.Errorf(banger.CodeBadImage, "a layer of image %s was damaged when the host went down",
		d.img.Digest).
		WithHint("fetch it again: banger image pull %s", d.img.Reference))
}

// repair makes the rootfs of an unverified image again from src, for all images that share it.
func (s *Store) repair(ctx context.Context, img banger.Image, src *source.Image, emit banger.Emit) error {
	s.repairing.Lock()
	defer s.repairing.Unlock()
	if !s.unverified.has(img.Digest) {
		return nil
	}
	if img.ConfigDigest == "" || len(img.Blobs) != len(img.Layers) {
		emit(banger.Event{Stage: "image", Text: "the layers of " + img.Digest +
			" are not kept, so that its file system cannot be checked after the host went down"})
		return s.unverified.remove(img.Digest)
	}
	emit(banger.Event{Stage: "image", Text: "the host went down unexpectedly: checking " + img.Digest})
	tmp, err := s.images.temp()
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	fresh := filepath.Join(tmp, rootfsFile)
	w := &work{store: s, src: src, emit: emit}
	if err := w.build(ctx, fresh, &img); err != nil {
		return err
	}
	all, err := s.images.all()
	if err != nil {
		return err
	}
	for _, other := range all {
		if other.Digest != img.Digest && (other.ConfigDigest != img.ConfigDigest || !s.unverified.has(other.Digest)) {
			continue
		}
		if err := s.images.replaceRootfs(other.Digest, fresh, filepath.Join(tmp, "link")); err != nil {
			return err
		}
		if err := s.unverified.remove(other.Digest); err != nil {
			return err
		}
	}
	return nil
}
