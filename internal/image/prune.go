package image

import (
	"errors"
	"maps"
	"os"

	"banger"
	"banger/internal/blob"
)

// Users returns a VM or a snapshot that uses an image, as banger.UserOf takes it, or "" if none does. It is called
// while the store is locked.
type Users func(digest string) (user string)

// Remove forgets a reference, or all references to a digest, and deletes the image when it has no
// reference left. An image that is in use keeps its last name, and the error says who needs it.
func (s *Store) Remove(ref string, users Users) error {
	img, err := s.Find(ref)
	if err != nil {
		return err
	}
	rest, err := s.removeNames(ref, img, users)
	if err != nil || rest == "" {
		return err
	}
	if err := os.RemoveAll(rest); err != nil {
		return err
	}
	_, err = s.collect(nil, false)
	return err
}

// removeNames is the part of Remove that runs while the store is locked. It returns the directory that
// the caller removes, or "".
func (s *Store) removeNames(ref string, img banger.Image, users Users) (rest string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	byDigest := blob.CheckDigest(ref) == nil
	var gone []string
	left := 0
	for name, r := range s.refs.byName {
		switch {
		case r.Digest != img.Digest:
		case byDigest || name == img.Reference:
			gone = append(gone, name)
		default:
			left++
		}
	}
	by := users(img.Digest)
	if by != "" && left == 0 {
		return "", banger.UsedError("image "+img.Reference, by)
	}
	if by = s.pins.By(img.Digest); by != "" && left == 0 {
		return "", banger.Errorf(banger.CodeConflict, "image %s is needed by %s", img.Reference, by).
			WithHint("try again when that is done")
	}
	err = s.refs.change(func(byName map[string]reference) {
		for _, name := range gone {
			delete(byName, name)
		}
	})
	if err != nil || left > 0 {
		return "", err
	}
	return s.images.take(img.Digest)
}

// Prune removes images that have no reference or, if all is set, that no VM uses. Then it removes
// blobs, also incomplete ones, that belong to no image. With dryRun it only returns what it would
// remove. Images in use stay, and the result says who needs them.
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

// pruneImages is Prune without the blobs. It also returns the digests of the images that are gone, or would be.
func (s *Store) pruneImages(all, dryRun bool, users Users) (p banger.Pruned, gone map[string]bool, err error) {
	images, err := s.images.all()
	if err != nil {
		return p, nil, err
	}
	var rest []string
	defer func() {
		for _, d := range rest {
			err = errors.Join(err, os.RemoveAll(d))
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	names := map[string]string{}
	for name, r := range s.refs.byName {
		names[r.Digest] = name
	}
	gone = map[string]bool{}
	for _, img := range images {
		name, named := names[img.Digest]
		if named && !all {
			continue
		}
		by := s.pins.By(img.Digest)
		if vm := users(img.Digest); vm != "" {
			by = banger.UserOf(vm)
		}
		if by != "" {
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
		rest = append(rest, d)
	}
	return p, gone, nil
}

// forget takes an image and all its names out of the store, and returns a directory that the caller removes. The caller
// holds s.mu.
func (s *Store) forget(digest string) (rest string, err error) {
	err = s.refs.change(func(byName map[string]reference) {
		maps.DeleteFunc(byName, func(_ string, r reference) bool { return r.Digest == digest })
	})
	if err != nil {
		return "", err
	}
	return s.images.take(digest)
}

// collect removes the blobs that are not in use and that belong to no image, or only to images in
// gone. With dryRun it only returns them.
func (s *Store) collect(gone map[string]bool, dryRun bool) ([]blob.Info, error) {
	var kept map[string]bool
	var failed error
	keep := func(digest string) bool {
		if kept == nil { // the blobs are locked: no unfinished image can add one now
			kept = map[string]bool{}
			var images []banger.Image
			images, failed = s.images.all()
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
