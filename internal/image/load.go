package image

import (
	"context"
	"io"

	"banger"
	"banger/internal/image/source"
)

// Load adds the images of an archive that `save`, docker or podman wrote, and returns them. An
// image without a name gets its digest as name.
func (s *Store) Load(ctx context.Context, r io.Reader, emit banger.Emit) ([]banger.Image, error) {
	t := s.begin("the load of an archive")
	defer t.end()
	a, err := source.OpenArchive(ctx, r, s.images.dir)
	if err != nil {
		return nil, pullError(ctx, "the archive", err)
	}
	defer a.Close()
	parts, err := a.Images(ctx)
	if err != nil {
		return nil, err
	}
	var list []banger.Image
	for _, p := range parts {
		loaded, err := s.loadOne(ctx, p, t, emit)
		if err != nil {
			return list, err
		}
		list = append(list, loaded...)
	}
	return list, nil
}

// loadOne adds one image under all its names.
func (s *Store) loadOne(ctx context.Context, p source.Part, t *task, emit banger.Emit) ([]banger.Image, error) {
	native, err := source.ParsePlatform("")
	if err != nil {
		return nil, err
	}
	src, err := s.finder.Read(ctx, p.Content, native)
	if err != nil {
		return nil, err
	}
	var refs []string
	for _, n := range p.Names {
		name, err := source.Normalize(n)
		if err != nil {
			return nil, err
		}
		refs = append(refs, name)
	}
	if len(refs) == 0 {
		refs = []string{src.Digest}
	}
	t.pin(src.Digest)
	img, err := s.Get(src.Digest)
	if err != nil {
		if img, _, err = s.add(ctx, refs[0], src, emit); err != nil {
			return nil, pullError(ctx, refs[0], err)
		}
	}
	var list []banger.Image
	for _, ref := range refs {
		if err := s.refer(ref, reference{Digest: img.Digest}); err != nil {
			return list, err
		}
		img.Reference = ref
		list = append(list, img)
	}
	return list, nil
}
