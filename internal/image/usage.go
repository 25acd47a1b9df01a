package image

import (
	"context"
	"sort"
	"syscall"

	"golang.org/x/sync/errgroup"

	"banger"
	"banger/internal/image/source"
	"banger/internal/registry"
)

// Usage returns how much space each image occupies on the host, and how much of it the image shares
// with others. Images with one config share a rootfs, and images with one base share blobs.
func (s *Store) Usage() ([]banger.ImageUsage, error) {
	images, err := s.images.all()
	if err != nil {
		return nil, err
	}
	names := map[string][]string{}
	for ref, r := range s.allReferences() {
		names[r.Digest] = append(names[r.Digest], ref)
	}
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

// checksAtOnce is how many registries are asked at the same time.
const checksAtOnce = 8

// Check returns all images and marks those whose name means something else in their registry by now. It notes why a
// registry could not be asked. It leaves an image that is not from a registry as it is.
func (s *Store) Check(ctx context.Context) ([]banger.Image, error) {
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	refs := s.allReferences()
	client := registry.New(s.remote, banger.RegistryAccessOf(ctx))
	defer client.Close()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(checksAtOnce)
	for i := range list {
		named := refs[list[i].Reference].Named
		if named == "" || !source.IsRemote(list[i].Reference) {
			continue
		}
		group.Go(func() error {
			digest, err := client.Digest(ctx, list[i].Reference)
			if ctx.Err() != nil {
				return banger.Canceled(ctx.Err())
			}
			if err != nil {
				list[i].Unchecked = err.Error()
			}
			list[i].Moved = err == nil && digest != named
			return nil
		})
	}
	return list, group.Wait()
}
