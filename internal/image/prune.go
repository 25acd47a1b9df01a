package image

import (
	"errors"
	"maps"
	"os"
	"path/filepath"

	"banger"
	"banger/internal/blob"
)

// Users says which VM uses an image; "" means that none does. It is called while the store is locked.
type Users func(digest string) (vm string)

// holder returns who needs an image, as the end of a sentence; "" if nobody does. s.mu is held.
func (s *Store) holder(digest string, users Users) string {
	if vm := users(digest); vm != "" {
		return "VM " + vm
	}
	return s.pins.By(digest)
}

// Remove forgets a reference (or, for a digest, all that name it) and deletes
// the image when none is left. An image that somebody needs stays, with all its names: the error says who needs it.
func (s *Store) Remove(ref string, users Users) error {
	img, err := s.Find(ref)
	if err != nil {
		return err
	}
	dead, err := s.unname(ref, img, users)
	if err != nil || dead == "" {
		return err
	}
	if err := os.RemoveAll(dead); err != nil {
		return err
	}
	_, err = s.collect(nil, false)
	return err
}

// unname is the part of Remove for which the store is locked. It returns the directory that is to be removed, if any.
func (s *Store) unname(ref string, img banger.Image, users Users) (dead string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	byDigest := checkDigest(ref) == nil
	refs, left := maps.Clone(s.refs), 0
	for name, r := range s.refs {
		switch {
		case r.Digest != img.Digest:
		case byDigest || name == img.Reference:
			delete(refs, name)
		default:
			left++
		}
	}
	by := users(img.Digest)
	if by != "" {
		return "", banger.Errorf(banger.CodeConflict, "image %s is used by VM %s", img.Reference, by).
			WithHint("remove it first: banger rm %s", by)
	}
	if by = s.pins.By(img.Digest); by != "" && left == 0 {
		return "", banger.Errorf(banger.CodeConflict, "image %s is needed by %s", img.Reference, by).
			WithHint("try again when that is done")
	}
	if err := s.saveRefs(refs); err != nil || left > 0 {
		return "", err
	}
	return s.bury(img.Digest)
}

// bury takes an image out of the store, at once for everybody, and returns the directory that is left to be removed.
// s.mu is held.
func (s *Store) bury(digest string) (dead string, err error) {
	dead = filepath.Join(s.tmpDir(), tmpPrefix+"rm-"+filepath.Base(s.path(digest)))
	if err := os.Rename(s.path(digest), dead); err != nil {
		return "", err
	}
	return dead, blob.Sync(s.tmpDir()) // else a power cut brings it back
}

// Prune removes images that have no reference or, with all, that no VM uses, and
// then the blobs and half-fetched blobs that belong to no image. With dryRun it
// only says what it would do. What somebody needs at that moment stays, and is told with who needs it.
func (s *Store) Prune(all, dryRun bool, users Users) (banger.Pruned, error) {
	p, gone, err := s.pruneImages(all, dryRun, users)
	if err != nil {
		return p, err
	}
	blobs, err := s.collect(gone, dryRun)
	for _, b := range blobs {
		p.Blobs++
		p.Bytes += b.Size
	}
	return p, err
}

// pruneImages is Prune without blobs. It also returns the digests of what is gone, or would be.
func (s *Store) pruneImages(all, dryRun bool, users Users) (p banger.Pruned, gone map[string]bool, err error) {
	images, err := s.all()
	if err != nil {
		return p, nil, err
	}
	var dead []string
	defer func() {
		for _, d := range dead {
			err = errors.Join(err, os.RemoveAll(d))
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	names := map[string]string{}
	for name, r := range s.refs {
		names[r.Digest] = name
	}
	gone = map[string]bool{}
	for _, img := range images {
		name, named := names[img.Digest]
		if named && !all {
			continue
		}
		if by := s.holder(img.Digest, users); by != "" {
			p.Kept = append(p.Kept, banger.Kept{Image: img.Digest, Reference: name, By: by})
			continue
		}
		p.Images = append(p.Images, img.Digest)
		gone[img.Digest] = true
		if links(s.RootfsPath(img.Digest)) == 1 {
			p.Bytes += img.Size
		}
		if dryRun {
			continue
		}
		d, err := s.forget(img.Digest)
		if err != nil {
			return p, gone, err
		}
		dead = append(dead, d)
	}
	return p, gone, nil
}

// forget takes an image and all that names it out of the store; s.mu is held.
func (s *Store) forget(digest string) (dead string, err error) {
	refs := maps.Clone(s.refs)
	maps.DeleteFunc(refs, func(_ string, r reference) bool { return r.Digest == digest })
	if err := s.saveRefs(refs); err != nil {
		return "", err
	}
	return s.bury(digest)
}

// collect removes the blobs that no image has but those in gone, and that are not being used. With dryRun it only
// returns what they are.
func (s *Store) collect(gone map[string]bool, dryRun bool) ([]blob.Info, error) {
	var kept map[string]bool
	var failed error
	keep := func(digest string) bool {
		if kept == nil { // the blobs are locked: what is not in an image now is not in one that is being finished
			kept = map[string]bool{}
			var images []banger.Image
			images, failed = s.all()
			for _, img := range images {
				if gone[img.Digest] {
					continue
				}
				for _, d := range blobsOf(img) {
					kept[d] = true
				}
			}
		}
		return failed != nil || kept[digest]
	}
	removed, err := s.blobs.Collect(keep, dryRun)
	return removed, errors.Join(err, failed)
}
