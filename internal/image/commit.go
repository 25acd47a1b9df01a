package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"banger"
)

// Commit makes an image named target from the image base and one more layer, whose plain tar it reads. The tar comes
// from a guest, so it is bounded and checked like any layer. If it is refused, nothing of it is left.
func (s *Store) Commit(ctx context.Context, base, target string, layer io.Reader, note banger.CommitNote,
	emit banger.Emit) (banger.Image, error) {
	name, err := newName(target)
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
		return img, errors.Join(hostError(ctx, name, err), cerr)
	}
	return img, nil
}

func (s *Store) commit(ctx context.Context, base banger.Image, name string, tarStream io.Reader, note banger.CommitNote,
	emit banger.Emit) (img banger.Image, err error) {
	making := s.begin("the commit of " + name)
	defer making.end()
	making.hold(base.Digest)
	emit(banger.Event{Stage: "commit", Text: "reading the changes"})
	m := &meter{reader: &contextReader{ctx, tarStream}, total: &total{emit: emit, text: "reading the changes"}}
	layer, diffID, err := s.pack(&boundedReader{m, s.limits.Bytes})
	if err != nil {
		return img, err
	}
	body, err := s.extend(ctx, base, layer, diffID, note)
	if err != nil {
		return img, err
	}
	platform, err := parsePlatform(base.Platform)
	if err != nil {
		return img, err
	}
	src, err := s.resolveContent(ctx, &made{s.blobs, body}, platform)
	if err != nil {
		return img, err
	}
	making.hold(src.digest)
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
func (s *Store) extend(ctx context.Context, base banger.Image, layer v1.Descriptor, diffID string,
	note banger.CommitNote) ([]byte, error) {
	raw, err := s.whole(ctx, base, base.ConfigDigest, maxConfig)
	if err != nil {
		return nil, err
	}
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
	if raw, err = json.Marshal(config); err != nil {
		return nil, err
	}
	digest, err := s.blobs.PutBytes(raw)
	if err != nil {
		return nil, err
	}
	hash, err := v1.NewHash(digest)
	if err != nil {
		return nil, err
	}
	old, err := s.whole(ctx, base, base.Digest, maxManifest)
	if err != nil {
		return nil, err
	}
	var m v1.Manifest
	if err := json.Unmarshal(old, &m); err != nil {
		return nil, err
	}
	if m.MediaType == types.DockerManifestSchema2 {
		layer.MediaType = types.DockerLayer
	}
	m.Config = v1.Descriptor{MediaType: m.Config.MediaType, Size: int64(len(raw)), Digest: hash}
	m.Layers = append(m.Layers, layer)
	m.Annotations, m.Subject = nil, nil // they describe the base
	return json.Marshal(m)
}

// newName returns the complete form of a name that an image is to get.
func newName(target string) (string, error) {
	full, err := normalizeName(target)
	if err != nil {
		return "", err
	}
	if _, taken := catalogue[target]; taken || strings.Contains(full, "@") {
		return "", banger.Errorf(banger.CodeInvalid, "%q cannot be given to an image", target).
			WithHint("use a name with a tag, such as mine:v1")
	}
	return full, nil
}

// boundedReader is a reader that returns an error after n bytes.
type boundedReader struct {
	r io.Reader
	n int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.n -= int64(n); b.n < 0 {
		return n, refused("the changes take more than the limit of an image")
	}
	return n, err
}
