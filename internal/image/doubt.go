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

// stopFile exists while a store is open, and says since which start of the host. When
// it is found with another start, the host went down before the store was closed.
const stopFile = "open.json"

// openMark is what stopFile says.
type openMark struct {
	Boot    string   `json:"boot"`
	Doubted []string `json:"doubted,omitempty"` // images not looked at since such an end
}

const bootIDFile = "/proc/sys/kernel/random/boot_id"

// markOpen finds out how the store was left, and notes that it is open.
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
		was = openMark{} // cut short by what we ask about
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
		if err := s.blobs.Doubt(); err != nil {
			return err
		}
	}
	return s.saveMark()
}

// saveMark writes stopFile; s.mu is held, or nobody else knows s.
func (s *Store) saveMark() error {
	m := openMark{Boot: s.boot}
	for digest := range s.doubted {
		m.Doubted = append(m.Doubted, digest)
	}
	slices.Sort(m.Doubted)
	return blob.WriteJSON(filepath.Join(s.dir, stopFile), m)
}

// Close says that the store was left in order. Nothing may be under way.
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

// Ready makes sure that an image's rootfs is what was written: after the host went
// down unexpectedly it is made again of its layers, which are hashed. It returns an
// error with CodeBadImage when a layer is damaged; a pull mends that.
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

// storedSource is an image of the store as one to be read.
func (s *Store) storedSource(img banger.Image) *source {
	src := &source{content: lost{img}, digest: img.Digest, configDigest: img.ConfigDigest}
	for i, b := range img.Blobs {
		src.layers = append(src.layers, layer{digest: b.Digest, diffID: img.Layers[i], size: b.Size, mediaType: b.MediaType})
	}
	return src
}

// lost is where the blobs of an image are sought that were here and are wrong.
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

// permanentError ends a fetch at once.
type permanentError struct{ error }

func (permanentError) Permanent() bool { return true }
func (p permanentError) Unwrap() error { return p.error }

// repair makes the rootfs of a doubted image again, from src, for all images that
// share it.
func (s *Store) repair(ctx context.Context, img banger.Image, src *source, emit banger.Emit) error {
	s.repairing.Lock()
	defer s.repairing.Unlock()
	if !s.isDoubted(img.Digest) {
		return nil
	}
	if img.ConfigDigest == "" || len(img.Blobs) != len(img.Layers) {
		emit(banger.Event{
			Stage: "image",
			Text: "the layers of " + img.Digest +
				" are not kept, so that its file system cannot be checked after the host went down",
		})
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

// trust notes that an image was looked at.
func (s *Store) trust(digest string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.doubted, digest)
	return s.saveMark()
}
