package source

import (
	"context"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"banger/internal/blob"
	"banger/internal/image/layer"
)

// Stored returns the content of an image whose blobs are in a blob store, except for its manifest.
func Stored(blobs *blob.Store, manifest []byte) Content { return &stored{blobs, manifest} }

type stored struct {
	blobs *blob.Store
	body  []byte
}

func (s *stored) Close() {}

func (s *stored) Manifest(context.Context, string) ([]byte, error) { return s.body, nil }

func (s *stored) Blob(_ context.Context, digest string, offset int64) (io.ReadCloser, error) {
	f, err := os.Open(s.blobs.Path(digest))
	if err != nil {
		return nil, blob.Permanent(err)
	}
	return from(f, offset)
}

// from returns the bytes of f from offset on. If that fails, it closes f.
func from(f io.ReadSeekCloser, offset int64) (io.ReadCloser, error) {
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// PutConfig stores a config and returns its descriptor, of the OCI type.
func (f *Finder) PutConfig(config []byte) (v1.Descriptor, error) {
	digest, err := f.Blobs.PutBytes(config)
	if err != nil {
		return v1.Descriptor{}, err
	}
	hash, err := v1.NewHash(digest)
	return v1.Descriptor{MediaType: ociConfigType, Size: int64(len(config)), Digest: hash}, err
}

// Descriptor returns a layer's descriptor in the form of a manifest.
func Descriptor(l layer.Descriptor) (v1.Descriptor, error) {
	hash, err := v1.NewHash(l.Digest)
	return v1.Descriptor{MediaType: types.MediaType(l.MediaType), Size: l.Size, Digest: hash}, err
}
