// Package source finds an image where it comes from: a registry, an OCI layout, an archive, a running docker or podman,
// or a recipe that makes it of Debian packages. It reads the manifest and the config, checks them, and says where the
// bytes of each layer can be fetched.
//
// It must not know how layers become a file system, nor which images are kept.
package source

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger"
	"banger/internal/blob"
	"banger/internal/image/layer"
	"banger/internal/registry"
)

// Image is an image that is about to be read. The caller closes its content.
type Image struct {
	Content
	RawManifest  []byte
	Digest       string // of RawManifest
	Named        string // digest of what the reference names: Digest, or that of an index that contains it
	ConfigDigest string
	Platform     string // os/arch[/variant]
	Created      time.Time
	Config       banger.ImageConfig
	Layers       []layer.Descriptor
}

// Fetch returns the source from which a blob store fetches a layer.
func (i *Image) Fetch(l layer.Descriptor) blob.Source { return blobSource(i.Content, l.Digest, l.Size) }

// Content serves the manifests and the blobs of an image.
type Content interface {
	// Manifest returns the manifest or index with a digest; "" means the one that the reference names.
	// It returns at most MaxManifest bytes, which match the digest.
	Manifest(ctx context.Context, digest string) (data []byte, err error)
	// Blob returns the bytes from offset on. They are not verified.
	Blob(ctx context.Context, digest string, offset int64) (io.ReadCloser, error)
	// Close frees what the content uses, such as temporary files.
	Close()
}

// Finder finds images. Its methods may be called concurrently.
type Finder struct {
	Blobs    *blob.Store // keeps configs, and everything that a recipe makes
	Registry registry.Options
	Temp     string // directory for temporary files, whose names start with TempPrefix
	Level    int    // of the guests' CPU, if it is an x86-64: 1 to 4; 0 means 1
}

// TempPrefix is the start of the names of all temporary files and directories.
const TempPrefix = ".tmp-"

// Find returns the image that a normalised reference names for a platform.
func (f *Finder) Find(ctx context.Context, ref string, platform v1.Platform, emit banger.Emit) (*Image, error) {
	c, err := f.open(ctx, ref, emit)
	if err != nil {
		return nil, err
	}
	img, err := f.Read(ctx, c, platform)
	if err != nil {
		c.Close()
		return nil, err
	}
	return img, nil
}

// open returns the content that a normalised reference names.
func (f *Finder) open(ctx context.Context, ref string, emit banger.Emit) (Content, error) {
	if r, ok := recipes[ref]; ok {
		return f.build(ctx, ref, r, emit)
	}
	scheme, rest, _ := strings.Cut(ref, ":")
	switch scheme + ":" {
	case schemeOCIArchive:
		return openOCIArchive(ctx, rest, f.Temp)
	case schemeDockerArchive:
		return openDockerArchive(ctx, rest, f.Temp)
	case schemeOCI:
		return openLayout(rest)
	case schemeDockerDaemon, schemePodman:
		return openEngine(ctx, scheme+":", rest, f.Temp)
	}
	return &remoteImage{registry.New(f.Registry, banger.RegistryAccessOf(ctx)), ref}, nil
}

// remoteImage is an image of a registry, with the client that fetches it.
type remoteImage struct {
	client *registry.Client
	ref    string
}

func (r *remoteImage) Close() { r.client.Close() }

func (r *remoteImage) Manifest(ctx context.Context, digest string) ([]byte, error) {
	ref := r.ref
	if digest != "" {
		repository, err := name.ParseReference(r.ref)
		if err != nil {
			return nil, err
		}
		ref = repository.Context().Digest(digest).Name()
	}
	m, err := r.client.Manifest(ctx, ref)
	return m.Body, err
}

func (r *remoteImage) Blob(ctx context.Context, digest string, offset int64) (io.ReadCloser, error) {
	return r.client.Blob(ctx, r.ref, digest, offset)
}

// blobSource returns the source from which a blob store fetches a blob of c.
func blobSource(c Content, digest string, size int64) blob.Source {
	return blob.Source{Digest: digest, Size: size, Open: func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		return c.Blob(ctx, digest, offset)
	}}
}
