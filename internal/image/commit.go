package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"banger"
	"banger/internal/contextio"
	"banger/internal/image/layer"
	"banger/internal/image/source"
)

// Commit makes an image named target from the image base and one more layer, whose plain tar it reads. The tar comes
// from a guest, so it is bounded and checked like any layer. If it is refused, nothing of it is left.
func (s *Store) Commit(ctx context.Context, base, target string, layer io.Reader, note banger.CommitNote,
	emit banger.Emit) (banger.Image, error) {
	name, err := source.NewName(target)
	if err != nil {
		return banger.Image{}, err
	}
	e, err := s.Export([]string{base})
	if err != nil {
		return banger.Image{}, err
	}
	img, err := s.commit(ctx, e.images[0], name, layer, note, emit)
	if err != nil {
		_, cerr := s.collect(nil, false)
		return img, errors.Join(pullError(ctx, name, err), cerr)
	}
	return img, nil
}

// commit adds the image, and gives it its name.
func (s *Store) commit(ctx context.Context, base banger.Image, name string, tar io.Reader, note banger.CommitNote,
	emit banger.Emit) (img banger.Image, err error) {
	t := s.begin("the commit of " + name)
	defer t.end()
	t.pin(base.Digest)
	emit(banger.Event{Stage: "commit", Text: "reading the changes"})
	in := layer.Watch(contextio.NewReader(ctx, tar), "reading the changes", emit)
	added, err := layer.Pack(s.blobs, &boundedReader{in, s.limits.Bytes})
	if err != nil {
		return img, err
	}
	manifest, err := s.extend(ctx, base, added, note)
	if err != nil {
		return img, err
	}
	platform, err := source.ParsePlatform(base.Platform)
	if err != nil {
		return img, err
	}
	src, err := s.finder.Read(ctx, source.Stored(s.blobs, manifest), platform)
	if err != nil {
		return img, err
	}
	t.pin(src.Digest)
	img, report, err := s.add(ctx, name, src, emit)
	if err != nil {
		return img, err
	}
	if err := s.refer(name, reference{Digest: img.Digest}); err != nil {
		return img, err
	}
	img.Reference = name
	emit(banger.Event{Stage: "commit", Text: report, Done: true})
	return img, nil
}

// extend returns the manifest of base with one more layer, and stores its config.
func (s *Store) extend(ctx context.Context, base banger.Image, added layer.Descriptor,
	note banger.CommitNote) ([]byte, error) {
	raw, err := s.readBlob(ctx, base, base.ConfigDigest, source.MaxConfig)
	if err != nil {
		return nil, err
	}
	config, err := extendConfig(raw, added.DiffID, note)
	if err != nil {
		return nil, err
	}
	configDescriptor, err := s.finder.PutConfig(config)
	if err != nil {
		return nil, err
	}
	old, err := s.readBlob(ctx, base, base.Digest, source.MaxManifest)
	if err != nil {
		return nil, err
	}
	var m v1.Manifest
	if err := json.Unmarshal(old, &m); err != nil {
		return nil, err
	}
	descriptor, err := source.Descriptor(added)
	if err != nil {
		return nil, err
	}
	if m.MediaType == types.DockerManifestSchema2 {
		descriptor.MediaType = types.DockerLayer
	}
	configDescriptor.MediaType = m.Config.MediaType
	m.Config = configDescriptor
	m.Layers = append(m.Layers, descriptor)
	m.Annotations, m.Subject = nil, nil // they describe the base
	return json.Marshal(m)
}

// extendConfig returns a config with one more layer.
func extendConfig(raw []byte, diffID string, note banger.CommitNote) ([]byte, error) {
	config, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	id, err := v1.NewHash(diffID)
	if err != nil {
		return nil, err
	}
	now := v1.Time{Time: time.Now().UTC()}
	config.Created, config.Author, config.Container = now, note.Author, ""
	config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, id)
	config.History = append(config.History, v1.History{Created: now, Author: note.Author, CreatedBy: "banger commit",
		Comment: note.Message})
	return json.Marshal(config)
}

// boundedReader is a reader that returns an error after n bytes.
type boundedReader struct {
	r io.Reader
	n int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.n -= int64(n); b.n < 0 {
		return n, banger.Errorf(banger.CodeBadImage, "the changes take more than the limit of an image")
	}
	return n, err
}
