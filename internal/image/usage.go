package image

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"banger"
	"banger/internal/blob"
)

// Usage returns what each image takes on the host, and how much of that it shares
// with others: a rootfs is shared by images of one config, a blob by images of one
// base.
func (s *Store) Usage() ([]banger.ImageUsage, error) {
	images, err := s.all()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	names := map[string][]string{}
	for ref, r := range s.refs {
		names[r.Digest] = append(names[r.Digest], ref)
	}
	s.mu.Unlock()
	users := map[string]int{} // of a blob
	for _, img := range images {
		for _, d := range blobsOf(img) {
			users[d]++
		}
	}
	var list []banger.ImageUsage
	for _, img := range images {
		u := banger.ImageUsage{Digest: img.Digest, References: names[img.Digest], Rootfs: img.Size}
		sort.Strings(u.References)
		if links(s.RootfsPath(img.Digest)) > 1 {
			u.Shared += img.Size
		}
		for _, d := range blobsOf(img) {
			size, _ := s.blobs.Has(d)
			u.Blobs += size
			if users[d] > 1 {
				u.Shared += size
			}
		}
		list = append(list, u)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Digest < list[j].Digest })
	return list, nil
}

// links is how many names a file has.
func links(path string) uint64 {
	var st syscall.Stat_t
	if syscall.Stat(path, &st) != nil {
		return 0
	}
	return uint64(st.Nlink)
}

// Prune removes images that have no reference or, with all, that no VM uses, and
// then the blobs and half-fetched blobs that belong to no image. With dryRun it
// only says what it would do. It refuses while an image is being fetched.
func (s *Store) Prune(all, dryRun bool, used func(digest string) bool) (banger.Pruned, error) {
	var p banger.Pruned
	if !s.collecting.TryLock() {
		return p, banger.Errorf(banger.CodeConflict, "an image is being fetched").WithHint("try again when it is done")
	}
	defer s.collecting.Unlock()
	images, err := s.all()
	if err != nil {
		return p, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	named := map[string]bool{}
	for _, r := range s.refs {
		named[r.Digest] = true
	}
	kept := map[string]bool{}
	for _, img := range images {
		if used(img.Digest) || named[img.Digest] && !all {
			for _, d := range blobsOf(img) {
				kept[d] = true
			}
			continue
		}
		p.Images = append(p.Images, img.Digest)
		if links(s.RootfsPath(img.Digest)) == 1 {
			p.Bytes += img.Size
		}
		if !dryRun {
			if err := s.forget(img.Digest); err != nil {
				return p, err
			}
		}
	}
	blobs, err := s.blobs.Collect(func(d string) bool { return kept[d] }, dryRun)
	for _, b := range blobs {
		p.Blobs++
		p.Bytes += b.Size
	}
	return p, err
}

// forget deletes an image and all that names it; s.mu is held.
func (s *Store) forget(digest string) error {
	for ref, r := range s.refs {
		if r.Digest == digest {
			delete(s.refs, ref)
		}
	}
	if err := s.saveRefs(); err != nil {
		return err
	}
	return s.delete(digest)
}

// delete removes an image's directory, at once for everyone who looks.
func (s *Store) delete(digest string) error {
	dead := filepath.Join(s.tmpDir(), tmpPrefix+"rm-"+filepath.Base(s.path(digest)))
	if err := os.Rename(s.path(digest), dead); err != nil {
		return err
	}
	if err := blob.Sync(s.tmpDir()); err != nil { // else a power cut brings it back
		return err
	}
	return os.RemoveAll(dead)
}

// collect removes the blobs that no image has any more, unless an image is being
// fetched: then the next removal or prune does it.
func (s *Store) collect() error {
	if !s.collecting.TryLock() {
		return nil
	}
	defer s.collecting.Unlock()
	images, err := s.all()
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	for _, img := range images {
		for _, d := range blobsOf(img) {
			kept[d] = true
		}
	}
	_, err = s.blobs.Collect(func(d string) bool { return kept[d] }, false)
	return err
}

// Check returns all images and marks those whose registry has something else by now
// under their name. Registries that do not answer, and other sources, leave an image
// as it is.
func (s *Store) Check(ctx context.Context) ([]banger.Image, error) {
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	refs := maps.Clone(s.refs)
	s.mu.Unlock()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(layersAtOnce)
	for i := range list {
		named := refs[list[i].Reference].Named
		if named == "" || !isRemote(list[i].Reference) {
			continue
		}
		group.Go(func() error {
			digest, err := s.remote.Digest(ctx, list[i].Reference)
			list[i].Moved = err == nil && digest != named
			return ctx.Err()
		})
	}
	return list, group.Wait()
}

// isRemote reports whether a normalised reference names an image of a registry.
func isRemote(ref string) bool {
	if _, ok := catalogue[ref]; ok || strings.HasPrefix(ref, "sha256:") {
		return false
	}
	for _, scheme := range []string{schemeOCI, schemeOCIArchive, schemeDockerArchive, schemeDockerDaemon, schemePodman} {
		if strings.HasPrefix(ref, scheme) {
			return false
		}
	}
	return true
}
