package image

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"banger"
	"banger/internal/image/source"
	"banger/internal/registry"
)

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
	if err != nil || source.IsRecipe(img.Reference) {
		return img, banger.Errorf(banger.CodeInvalid, "%s is not the name of an image in a registry", img.Reference).
			WithHint("name one first: banger image tag %s registry.example.com/name:tag", img.Reference)
	}
	client := registry.New(s.remote, banger.RegistryAccessOf(ctx))
	defer client.Close()
	rt, err := client.RoundTripper(ctx, img.Reference, "push,pull")
	if err != nil {
		return img, err
	}
	pushed, err := partial.CompressedToImage(&storedImage{s, img})
	if err != nil {
		return img, err
	}
	emit(banger.Event{Stage: "push", Text: "pushing " + img.Reference})
	if err := remote.Write(tag, pushed, remote.WithContext(ctx), remote.WithTransport(rt)); err != nil {
		return img, client.Explain(ctx, img.Reference, err)
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
	return i.store.blobs.ReadAll(context.Background(), i.img.Digest, source.MaxManifest)
}

func (i *storedImage) RawConfigFile() ([]byte, error) {
	return i.store.blobs.ReadAll(context.Background(), i.img.ConfigDigest, source.MaxConfig)
}

func (i *storedImage) MediaType() (types.MediaType, error) {
	raw, err := i.RawManifest()
	if err != nil {
		return "", err
	}
	return types.MediaType(cmp.Or(source.MediaType(raw), string(types.OCIManifestSchema1))), nil
}

func (i *storedImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, b := range i.img.Blobs {
		if b.Digest == h.String() {
			return &storedLayer{i.store, b, h}, nil
		}
	}
	return nil, fmt.Errorf("the image has no layer %s", h)
}

// storedLayer presents a layer of a stored image to the library (partial.CompressedLayer).
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
