package image

import (
	"context"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger"
	"banger/internal/registry"
)

// source is an image that is about to be read.
type source struct {
	content      content
	manifest     []byte
	digest       string // digest of manifest
	named        string // digest of what the reference names: manifest, or an index that contains it
	configDigest string
	platform     string
	created      time.Time
	config       banger.ImageConfig
	layers       []layer
}

// layer is one layer of a source. Layers are ordered from the oldest on.
type layer struct {
	digest    string // of the blob as stored
	diffID    string // of the tar
	size      int64  // of the blob
	mediaType string
}

// The schemes of references that are not names in the catalogue or in a registry.
const (
	schemeOCI           = "oci:"
	schemeOCIArchive    = "oci-archive:"
	schemeDockerArchive = "docker-archive:"
	schemeDockerDaemon  = "docker-daemon:"
	schemePodman        = "podman:"
)

// What the library allows and docker does not (distribution/reference).
var (
	repositoryRE = regexp.MustCompile(`^[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*)*$`)
	registryRE   = regexp.MustCompile(`^[A-Za-z0-9\[]`)
)

// Normalize returns the canonical form of a reference, under which images are listed and compared.
// It returns an *Error of CodeInvalid if ref is not valid.
func (s *Store) Normalize(ref string) (string, error) {
	if _, ok := catalogue[ref]; ok || checkDigest(ref) == nil {
		return ref, nil
	}
	for _, scheme := range []string{schemeOCI, schemeOCIArchive, schemeDockerArchive} {
		path, ok := strings.CutPrefix(ref, scheme)
		if !ok {
			continue
		}
		if !filepath.IsAbs(path) {
			return "", banger.Errorf(banger.CodeInvalid, "the path in %q is not absolute", ref)
		}
		return scheme + filepath.Clean(path), nil
	}
	for _, scheme := range []string{schemeDockerDaemon, schemePodman} {
		if rest, ok := strings.CutPrefix(ref, scheme); ok {
			full, err := normalizeName(rest)
			return scheme + full, err
		}
	}
	return normalizeName(ref)
}

// normalizeName completes the name of a registry's image as docker does.
func normalizeName(ref string) (string, error) {
	r, err := name.ParseReference(ref)
	if err != nil || !repositoryRE.MatchString(r.Context().RepositoryStr()) ||
		!registryRE.MatchString(r.Context().RegistryStr()) {
		return "", banger.Errorf(banger.CodeInvalid, "%.200q is not an image reference", ref).
			WithHint("write it as docker does, or see: banger image pull --help")
	}
	full := r.Name()
	if rest, ok := strings.CutPrefix(full, "index.docker.io/"); ok {
		full = "docker.io/" + rest
	}
	return full, nil
}

// resolve finds the image that a normalised reference names for a platform, and reads its manifest
// and config. The caller closes the source's content.
func (s *Store) resolve(ctx context.Context, ref string, want v1.Platform, emit banger.Emit) (*source, error) {
	c, err := s.open(ctx, ref, emit)
	if err != nil {
		return nil, err
	}
	src, err := s.resolveContent(ctx, c, want)
	if err != nil {
		c.close()
		return nil, err
	}
	return src, nil
}

// open returns the content that a normalised reference names.
func (s *Store) open(ctx context.Context, ref string, emit banger.Emit) (content, error) {
	if r, ok := catalogue[ref]; ok {
		return s.make(ctx, ref, r, emit)
	}
	scheme, rest, _ := strings.Cut(ref, ":")
	switch scheme + ":" {
	case schemeOCIArchive:
		return openOCIArchive(ctx, rest, s.tmpDir())
	case schemeDockerArchive:
		return openDockerArchive(ctx, rest, s.tmpDir())
	case schemeOCI:
		return openLayout(rest)
	case schemeDockerDaemon, schemePodman:
		return openEngine(ctx, scheme+":", rest, s.tmpDir())
	}
	return &remoteImage{s.remote, ref}, nil
}

// remoteImage is an image of a registry.
type remoteImage struct {
	client *registry.Client
	ref    string
}

func (r *remoteImage) close() {}

func (r *remoteImage) manifest(ctx context.Context, digest string) ([]byte, error) {
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

func (r *remoteImage) blob(ctx context.Context, digest string, offset int64) (io.ReadCloser, error) {
	return r.client.Blob(ctx, r.ref, digest, offset)
}
