package image

import (
	"context"
	"maps"
	"sort"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"banger"
)

// Usage returns how much space each image occupies on the host, and how much of it the image shares
// with others. Images with one config share a rootfs, and images with one base share blobs.
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

// links returns how many names a file has.
func links(path string) uint64 {
	var st syscall.Stat_t
	if syscall.Stat(path, &st) != nil {
		return 0
	}
	return uint64(st.Nlink)
}

// Check returns all images and marks those whose name means something else in their registry by
// now. It leaves an image as it is if its registry does not answer or if it is not from a registry.
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
