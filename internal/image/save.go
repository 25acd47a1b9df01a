package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"banger"
	"banger/internal/blob"
	"banger/internal/contextio"
	"banger/internal/image/layer"
	"banger/internal/image/source"
)

// Tag gives an image another name, in the form of a registry's names.
func (s *Store) Tag(ref, target string) (banger.Image, error) {
	img, err := s.Find(ref)
	if err != nil {
		return img, err
	}
	full, err := source.NewName(target)
	if err != nil {
		return img, err
	}
	img.Reference = full
	return img, s.refer(full, reference{Digest: img.Digest})
}

// History returns the steps in which an image was built, newest first, as its config lists them.
func (s *Store) History(ctx context.Context, ref string) ([]banger.ImageStep, error) {
	img, err := s.Find(ref)
	if err != nil {
		return nil, err
	}
	raw, err := s.readBlob(ctx, img, img.ConfigDigest, source.MaxConfig)
	if err != nil {
		return nil, err
	}
	cfg, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return nil, banger.Errorf(banger.CodeBadImage, "the config of the image is not valid: %w", err)
	}
	var steps []banger.ImageStep
	layer := 0
	for _, h := range cfg.History {
		step := banger.ImageStep{Created: h.Created.Time, By: h.CreatedBy, Comment: h.Comment}
		if !h.EmptyLayer && layer < len(img.Blobs) {
			step.Layer, step.Size = img.Blobs[layer].Digest, img.Blobs[layer].Size
			layer++
		}
		steps = append(steps, step)
	}
	for ; layer < len(img.Blobs); layer++ { // layers that the history does not mention
		steps = append(steps, banger.ImageStep{Layer: img.Blobs[layer].Digest, Size: img.Blobs[layer].Size})
	}
	slices.Reverse(steps)
	return steps, nil
}

// readBlob returns a small blob of an image, after it has verified the digest.
func (s *Store) readBlob(ctx context.Context, img banger.Image, digest string, limit int64) ([]byte, error) {
	if _, ok := s.blobs.Has(digest); !ok {
		return nil, notStored(img)
	}
	return s.blobs.ReadAll(ctx, digest, limit)
}

// notStored returns the error for an image without its blobs, such as a registered one.
func notStored(img banger.Image) error {
	return banger.Errorf(banger.CodeNotFound, "the layers of %s are not kept here", img.Reference).
		WithHint("fetch it again: banger image rm %s && banger image pull %s", img.Reference, img.Reference)
}

// Export is a set of images that is ready to be written as one archive.
type Export struct {
	store  *Store
	images []banger.Image
}

// Export finds images and checks that all their blobs are stored.
func (s *Store) Export(refs []string) (*Export, error) {
	e := &Export{store: s}
	for _, ref := range refs {
		img, err := s.Find(ref)
		if err != nil {
			return nil, err
		}
		for _, digest := range blobsOf(img) {
			if _, ok := s.blobs.Has(digest); !ok {
				return nil, notStored(img)
			}
		}
		e.images = append(e.images, img)
	}
	return e, nil
}

// blobsOf returns the digests of all blobs of an image.
func blobsOf(img banger.Image) []string {
	list := []string{img.Digest, img.ConfigDigest}
	for _, b := range img.Blobs {
		list = append(list, b.Digest)
	}
	return list
}

// Write writes a tar that is an OCI layout and that `docker load` can read as well. It checks every
// blob while it writes it.
func (e *Export) Write(ctx context.Context, out io.Writer) error {
	for _, img := range e.images {
		release, err := e.store.Pin(img.Digest, "the save of "+img.Reference)
		if err != nil {
			return err
		}
		defer release()
	}
	w := tar.NewWriter(out)
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	var list []source.DockerImage
	written := map[string]bool{}
	for _, img := range e.images {
		for _, digest := range blobsOf(img) {
			if !written[digest] {
				written[digest] = true
				if err := e.writeBlob(ctx, w, digest); err != nil {
					return err
				}
			}
		}
		d, err := e.describe(img)
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, d)
		list = append(list, dockerImage(img))
	}
	for _, member := range []struct {
		name string
		v    any
	}{
		{"oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"}},
		{"index.json", index},
		{source.DockerManifest, list},
	} {
		data, err := json.Marshal(member.v)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: member.name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	return w.Close()
}

// writeBlob writes a blob and checks its digest.
func (e *Export) writeBlob(ctx context.Context, w *tar.Writer, digest string) error {
	size, _ := e.store.blobs.Has(digest)
	if err := w.WriteHeader(&tar.Header{Name: blobFile(digest), Mode: 0o644, Size: size}); err != nil {
		return err
	}
	f, err := os.Open(e.store.blobs.Path(digest))
	if err != nil {
		return err
	}
	defer f.Close()
	h := layer.NewHashReader(contextio.NewReader(ctx, f))
	defer h.Stop()
	if _, err := io.Copy(w, h); err != nil {
		return err
	}
	if got := h.Sum(); got != digest {
		return banger.Errorf(banger.CodeInternal, "the stored blob %s is damaged: its digest is %s", digest, got).
			WithHint("remove the image and pull it again")
	}
	return nil
}

// describe returns the entry of an image in the index of a layout.
func (e *Export) describe(img banger.Image) (v1.Descriptor, error) {
	hash, err := v1.NewHash(img.Digest)
	if err != nil {
		return v1.Descriptor{}, err
	}
	size, _ := e.store.blobs.Has(img.Digest)
	d := v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: size, Digest: hash,
		Annotations: map[string]string{source.AnnotationName: img.Reference}}
	raw, err := os.ReadFile(e.store.blobs.Path(img.Digest))
	if err != nil {
		return d, err
	}
	if t := source.MediaType(raw); t != "" {
		d.MediaType = types.MediaType(t)
	}
	if tag := source.RepoTag(img.Reference); tag != "" {
		d.Annotations[source.AnnotationRef] = tag[strings.LastIndexByte(tag, ':')+1:]
	}
	return d, nil
}

// dockerImage returns the entry of an image in docker's list.
func dockerImage(img banger.Image) source.DockerImage {
	d := source.DockerImage{Config: blobFile(img.ConfigDigest), RepoTags: []string{}, Layers: []string{}}
	if tag := source.RepoTag(img.Reference); tag != "" {
		d.RepoTags = append(d.RepoTags, tag)
	}
	for _, b := range img.Blobs {
		d.Layers = append(d.Layers, blobFile(b.Digest))
	}
	return d
}

// blobFile returns the name of a stored blob in an archive.
func blobFile(digest string) string { return "blobs/sha256/" + blob.Digits(digest) }
