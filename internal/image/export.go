package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"banger"
)

const (
	annotationName = "io.containerd.image.name"          // the whole reference
	annotationRef  = "org.opencontainers.image.ref.name" // only the tag (annotations.md)
)

// Tag gives an image another name, in the form of a registry's names.
func (s *Store) Tag(source, target string) (banger.Image, error) {
	img, err := s.Find(source)
	if err != nil {
		return img, err
	}
	full, err := newName(target)
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
	raw, err := s.whole(ctx, img, img.ConfigDigest, maxConfig)
	if err != nil {
		return nil, err
	}
	cfg, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return nil, refused("the config of the image is not valid: %w", err)
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

// whole returns a small blob of an image.
func (s *Store) whole(ctx context.Context, img banger.Image, digest string, limit int64) ([]byte, error) {
	if _, ok := s.blobs.Has(digest); !ok {
		return nil, notStored(img)
	}
	return s.blobs.ReadAll(ctx, digest, limit)
}

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
	var list []saved
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
		list = append(list, savedImage(img))
	}
	for _, member := range []struct {
		name string
		v    any
	}{{"oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"}}, {"index.json", index}, {"manifest.json", list}} {
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

func (e *Export) writeBlob(ctx context.Context, w *tar.Writer, digest string) error {
	size, _ := e.store.blobs.Has(digest)
	name, err := blobName(digest)
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	f, err := os.Open(e.store.blobs.Path(digest))
	if err != nil {
		return err
	}
	defer f.Close()
	h := newHashing(&contextReader{ctx, f})
	defer h.stop()
	if _, err := io.Copy(w, h); err != nil {
		return err
	}
	if got := h.sum(); got != digest {
		return banger.Errorf(banger.CodeInternal, "the stored blob %s has become %s", digest, got).
			WithHint("remove the image and pull it again")
	}
	return nil
}

func (e *Export) describe(img banger.Image) (v1.Descriptor, error) {
	hash, err := v1.NewHash(img.Digest)
	if err != nil {
		return v1.Descriptor{}, err
	}
	size, _ := e.store.blobs.Has(img.Digest)
	d := v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: size, Digest: hash,
		Annotations: map[string]string{annotationName: img.Reference}}
	raw, err := os.ReadFile(e.store.blobs.Path(img.Digest))
	if err != nil {
		return d, err
	}
	if m, err := parseManifest(raw); err == nil && m.MediaType != "" {
		d.MediaType = types.MediaType(m.MediaType)
	}
	if tag := repoTag(img.Reference); tag != "" {
		d.Annotations[annotationRef] = tag[strings.LastIndexByte(tag, ':')+1:]
	}
	return d, nil
}

func savedImage(img banger.Image) saved {
	s := saved{Config: "blobs/sha256/" + strings.TrimPrefix(img.ConfigDigest, "sha256:"), RepoTags: []string{},
		Layers: []string{}}
	if tag := repoTag(img.Reference); tag != "" {
		s.RepoTags = append(s.RepoTags, tag)
	}
	for _, b := range img.Blobs {
		s.Layers = append(s.Layers, "blobs/sha256/"+strings.TrimPrefix(b.Digest, "sha256:"))
	}
	return s
}

// repoTag returns a reference in docker's form name:tag, or "" if it has no tag.
func repoTag(ref string) string {
	if _, ok := catalogue[ref]; ok {
		return ref + ":latest"
	}
	tag, err := name.NewTag(ref, name.StrictValidation)
	if err != nil || strings.Contains(ref, "@") {
		return ""
	}
	return strings.TrimPrefix(strings.TrimPrefix(tag.Name(), "index.docker.io/"), "library/")
}

// Load adds the images of an archive that `save`, docker or podman wrote, and returns them. An
// image without a name gets its digest as name.
func (s *Store) Load(ctx context.Context, r io.Reader, emit banger.Emit) ([]banger.Image, error) {
	m := s.begin("the load of an archive")
	defer m.end()
	file, err := spool(&contextReader{ctx, r}, s.tmpDir())
	if err != nil {
		return nil, hostError(ctx, "the archive", err)
	}
	defer os.Remove(file)
	a, err := openArchive(ctx, file, s.tmpDir())
	if err != nil {
		return nil, archiveError(ctx, "image", "that was sent", err)
	}
	defer a.cleanup()
	parts, err := imagesOf(ctx, a)
	if err != nil {
		return nil, err
	}
	var list []banger.Image
	for _, p := range parts {
		img, err := s.loadOne(ctx, p, m, emit)
		if err != nil {
			return list, err
		}
		list = append(list, img...)
	}
	return list, nil
}

// part is one image of an archive.
type part struct {
	content content
	names   []string
}

// imagesOf lists the images of an archive. It reads the index of an OCI layout or, if there is
// none, docker's manifest.json.
func imagesOf(ctx context.Context, a *archive) ([]part, error) {
	var parts []part
	if _, ok := a.members["index.json"]; ok {
		layout := &ociLayout{open: a.open, cleanup: func() {}}
		data, err := layout.read("index.json")
		if err != nil {
			return nil, err
		}
		var index v1.IndexManifest
		if err := unmarshal(data, &index); err != nil {
			return nil, refused("index.json of the archive is not valid: %w", err)
		}
		for _, d := range index.Manifests {
			p := part{content: &chosen{layout, d.Digest.String()}}
			if n := d.Annotations[annotationName]; n != "" {
				p.names = []string{n}
			} else if n := d.Annotations[annotationRef]; strings.Contains(n, ":") {
				p.names = []string{n}
			}
			parts = append(parts, p)
		}
		return parts, nil
	}
	list, err := a.saved()
	if err != nil {
		return nil, archiveError(ctx, "image", "that was sent", err)
	}
	for _, one := range list {
		d := &dockerArchive{archive: a, names: map[string]string{}}
		if err := d.assemble(ctx, one); err != nil {
			return nil, archiveError(ctx, "image", "that was sent", err)
		}
		parts = append(parts, part{d, one.RepoTags})
	}
	return parts, nil
}

// chosen is one image of a content that has several.
type chosen struct {
	content
	digest string
}

func (c *chosen) manifest(ctx context.Context, digest string) ([]byte, error) {
	if digest == "" {
		digest = c.digest
	}
	return c.content.manifest(ctx, digest)
}

// loadOne adds one image under all its names.
func (s *Store) loadOne(ctx context.Context, p part, m *making, emit banger.Emit) ([]banger.Image, error) {
	native, _ := parsePlatform("")
	src, err := s.resolveContent(ctx, p.content, native)
	if err != nil {
		return nil, err
	}
	var refs []string
	for _, n := range p.names {
		full, err := s.Normalize(n)
		if err != nil {
			return nil, err
		}
		if _, ok := catalogue[n]; ok {
			full = n
		}
		refs = append(refs, full)
	}
	if len(refs) == 0 {
		refs = []string{src.digest}
	}
	m.hold(src.digest)
	img, err := s.Get(src.digest)
	if err != nil {
		if img, _, err = s.add(ctx, refs[0], src, emit); err != nil {
			return nil, hostError(ctx, refs[0], err)
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

// Push writes an image to the registry in its name.
func (s *Store) Push(ctx context.Context, ref string, emit banger.Emit) (banger.Image, error) {
	e, err := s.Export([]string{ref})
	if err != nil {
		return banger.Image{}, err
	}
	img := e.images[0]
	release, err := s.Pin(img.Digest, "the push of "+img.Reference)
	if err != nil {
		return img, err
	}
	defer release()
	tag, err := name.NewTag(img.Reference)
	if _, own := catalogue[img.Reference]; err != nil || own {
		return img, banger.Errorf(banger.CodeInvalid, "%s names no place in a registry", img.Reference).
			WithHint("name one first: banger image tag %s registry.example.com/name:tag", img.Reference)
	}
	rt, err := s.remote.RoundTripper(ctx, img.Reference, "push,pull")
	if err != nil {
		return img, err
	}
	pushed, err := partial.CompressedToImage(&storedImage{s, img})
	if err != nil {
		return img, err
	}
	emit(banger.Event{Stage: "push", Text: "pushing " + img.Reference})
	if err := remote.Write(tag, pushed, remote.WithContext(ctx), remote.WithTransport(rt)); err != nil {
		return img, s.remote.Explain(ctx, img.Reference, err)
	}
	emit(banger.Event{Stage: "push", Text: fmt.Sprintf("pushed %s as %s", img.Reference, img.Digest), Done: true})
	return img, nil
}

// storedImage presents a stored image to the library (partial.CompressedImageCore).
type storedImage struct {
	store *Store
	img   banger.Image
}

func (i *storedImage) RawManifest() ([]byte, error) {
	return i.store.blobs.ReadAll(context.Background(), i.img.Digest, maxManifest)
}

func (i *storedImage) RawConfigFile() ([]byte, error) {
	return i.store.blobs.ReadAll(context.Background(), i.img.ConfigDigest, maxConfig)
}

func (i *storedImage) MediaType() (types.MediaType, error) {
	raw, err := i.RawManifest()
	if err != nil {
		return "", err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return "", err
	}
	if m.MediaType == "" {
		return types.OCIManifestSchema1, nil
	}
	return types.MediaType(m.MediaType), nil
}

func (i *storedImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, b := range i.img.Blobs {
		if b.Digest == h.String() {
			return &storedLayer{i.store, b, h}, nil
		}
	}
	return nil, fmt.Errorf("the image has no layer %s", h)
}

type storedLayer struct {
	store *Store
	blob  banger.Blob
	hash  v1.Hash
}

func (l *storedLayer) Digest() (v1.Hash, error) { return l.hash, nil }
func (l *storedLayer) Size() (int64, error)     { return l.blob.Size, nil }
func (l *storedLayer) MediaType() (types.MediaType, error) {
	return types.MediaType(l.blob.MediaType), nil
}
func (l *storedLayer) Compressed() (io.ReadCloser, error) {
	return os.Open(l.store.blobs.Path(l.blob.Digest))
}
