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

	"banger"
	"banger/internal/blob"
)

// stopFile exists while a store is open. It contains the boot id of the host. If the host has
// another boot id when the store is opened, the host went down before the store was closed.
const stopFile = "open.json"

// openMark is the content of stopFile.
type openMark struct {
	Boot    string   `json:"boot"`
	Doubted []string `json:"doubted,omitempty"` // images that were not checked since the host went down
}

const bootIDFile = "/proc/sys/kernel/random/boot_id"

// markOpen finds out whether the store was closed properly, and notes that it is open.
func (s *Store) markOpen(boot string) error {
	if boot == "" {
		id, err := os.ReadFile(bootIDFile)
		if err != nil {
			return err
		}
		boot = strings.TrimSpace(string(id))
	}
	s.boot, s.doubted = boot, map[string]bool{}
	data, err := os.ReadFile(filepath.Join(s.dir, stopFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s.saveMark()
	}
	var was openMark
	if err == nil && json.Unmarshal(data, &was) != nil {
		was = openMark{} // incomplete because the host went down
	}
	if err != nil {
		return err
	}
	images, err := s.all()
	if err != nil {
		return err
	}
	for _, img := range images {
		if was.Boot != boot || slices.Contains(was.Doubted, img.Digest) {
			s.doubted[img.Digest] = true
		}
	}
	if len(s.doubted) > 0 {
		if err := s.blobs.MarkUnverified(); err != nil {
			return err
		}
	}
	return s.saveMark()
}

// saveMark writes stopFile. The caller holds s.mu, or is the only user of s.
func (s *Store) saveMark() error {
	m := openMark{Boot: s.boot}
	for digest := range s.doubted {
		m.Doubted = append(m.Doubted, digest)
	}
	slices.Sort(m.Doubted)
	return blob.WriteJSON(filepath.Join(s.dir, stopFile), m)
}

// Close notes that the store was closed properly. No other call may be running.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.doubted) > 0 {
		return nil
	}
	return os.Remove(filepath.Join(s.dir, stopFile))
}

func (s *Store) isDoubted(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doubted[digest]
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
		return checkForeign(img)
	}
	if !s.isDoubted(digest) {
		return nil
	}
	return s.repair(ctx, img, s.storedSource(img), emit)
}

// storedSource returns a stored image as a source.
func (s *Store) storedSource(img banger.Image) *source {
	src := &source{content: lost{img}, digest: img.Digest, configDigest: img.ConfigDigest}
	for i, b := range img.Blobs {
		src.layers = append(src.layers, layer{digest: b.Digest, diffID: img.Layers[i], size: b.Size, mediaType: b.MediaType})
	}
	return src
}

// lost is a content that stands for blobs which were stored and turned out to be damaged. All its
// methods return an error.
type lost struct{ img banger.Image }

func (d lost) manifest(context.Context, string) ([]byte, error) { return nil, d.err() }
func (d lost) blob(context.Context, string, int64) (io.ReadCloser, error) {
	return nil, d.err()
}
func (d lost) close() {}

func (d lost) err() error {
	return permanentError{banger.Errorf(banger.CodeBadImage, "a layer of image %s was damaged when the host went down",
		d.img.Digest).
		WithHint("fetch it again: banger image pull %s", d.img.Reference)}
}

// permanentError is an error that ends a fetch at once.
type permanentError struct{ error }

func (permanentError) Permanent() bool { return true }
func (p permanentError) Unwrap() error { return p.error }

// repair makes the rootfs of a doubted image again from src, for all images that share it.
func (s *Store) repair(ctx context.Context, img banger.Image, src *source, emit banger.Emit) error {
	s.repairing.Lock()
	defer s.repairing.Unlock()
	if !s.isDoubted(img.Digest) {
		return nil
	}
	if img.ConfigDigest == "" || len(img.Blobs) != len(img.Layers) {
		emit(banger.Event{Stage: "image", Text: "the layers of " + img.Digest +
			" are not kept, so that its file system cannot be checked after the host went down"})
		return s.trust(img.Digest)
	}
	emit(banger.Event{Stage: "image", Text: "the host went down unexpectedly: checking " + img.Digest})
	tmp, err := os.MkdirTemp(s.tmpDir(), tmpPrefix+"*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	fresh := filepath.Join(tmp, rootfsFile)
	w := &work{store: s, src: src, emit: emit}
	if err := w.build(ctx, fresh, &img); err != nil {
		return err
	}
	all, err := s.all()
	if err != nil {
		return err
	}
	for _, other := range all {
		if other.Digest != img.Digest && (other.ConfigDigest != img.ConfigDigest || !s.isDoubted(other.Digest)) {
			continue
		}
		again := filepath.Join(tmp, "link")
		if err := os.Link(fresh, again); err != nil {
			return err
		}
		if err := os.Rename(again, s.RootfsPath(other.Digest)); err != nil {
			return err
		}
		if err := blob.Sync(s.path(other.Digest)); err != nil {
			return err
		}
		if err := s.trust(other.Digest); err != nil {
			return err
		}
	}
	return nil
}

// trust notes that an image was checked.
func (s *Store) trust(digest string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.doubted, digest)
	return s.saveMark()
}
