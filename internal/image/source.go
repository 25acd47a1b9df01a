package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"banger"
)

// source is an image that is about to be read.
type source struct {
	digest   string // of the manifest; a recipe's is set when its layer was read
	platform string
	config   banger.ImageConfig
	layers   []layer
	close    func()
}

// layer is one layer of a source, oldest first.
type layer struct {
	digest string // of the blob as stored; "" when it is not checked
	diffID string // of the tar; "" when it is only known afterwards
	size   int64  // of the blob, 0 when unknown
	open   func(context.Context) (io.ReadCloser, error)
}

// The forms of a reference beside catalogue names and registries.
const (
	schemeOCI           = "oci:"
	schemeOCIArchive    = "oci-archive:"
	schemeDockerArchive = "docker-archive:"
)

// What the library lets pass and docker does not (distribution/reference).
var (
	repositoryRE = regexp.MustCompile(`^[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*)*$`)
	registryRE   = regexp.MustCompile(`^[A-Za-z0-9\[]`)
)

// Normalize returns the canonical form of a reference, by which images are
// listed and compared, or an *Error of CodeInvalid.
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
	r, err := name.ParseReference(ref)
	if err != nil || !repositoryRE.MatchString(r.Context().RepositoryStr()) || !registryRE.MatchString(r.Context().RegistryStr()) {
		return "", banger.Errorf(banger.CodeInvalid, "%.200q is not an image reference", ref).
			WithHint("write it as docker does, or see: banger image pull --help")
	}
	full := r.Name()
	if rest, ok := strings.CutPrefix(full, "index.docker.io/"); ok {
		full = "docker.io/" + rest
	}
	return full, nil
}

func (s *Store) resolve(ctx context.Context, ref string, emit banger.Emit) (*source, error) {
	if r, ok := catalogue[ref]; ok {
		return recipeSource(ref, r, filepath.Join(s.dir, "sha256")), nil
	}
	if path, ok := strings.CutPrefix(ref, schemeOCIArchive); ok {
		return s.ociArchive(ctx, path)
	}
	if path, ok := strings.CutPrefix(ref, schemeDockerArchive); ok {
		img, err := tarball.ImageFromPath(path, nil)
		if err != nil {
			return nil, banger.Errorf(banger.CodeInvalid, "cannot read the docker archive %s: %w", path, err)
		}
		return fromImage(img, func() {})
	}
	if path, ok := strings.CutPrefix(ref, schemeOCI); ok {
		return ociLayout(path, func() {})
	}
	return fromRegistry(ctx, ref)
}

func platform() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

func fromRegistry(ctx context.Context, ref string) (*source, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return nil, banger.Errorf(banger.CodeInvalid, "%q is not an image reference: %w", ref, err)
	}
	img, err := remote.Image(r, remote.WithContext(ctx), remote.WithPlatform(platform()),
		remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithUserAgent("banger/"+banger.Version))
	if err != nil {
		return nil, registryError(ctx, ref, r.Context().RegistryStr(), err)
	}
	return fromImage(img, func() {})
}

func registryError(ctx context.Context, ref, registry string, err error) error {
	if ctx.Err() != nil {
		return banger.Errorf(banger.CodeCanceled, "canceled while resolving %s: %w", ref, ctx.Err())
	}
	if e, ok := errors.AsType[*transport.Error](err); ok {
		switch e.StatusCode {
		case http.StatusNotFound:
			return banger.Errorf(banger.CodeNotFound, "registry %s has no image %s", registry, ref).WithHint("check name and tag")
		case http.StatusUnauthorized, http.StatusForbidden:
			return banger.Errorf(banger.CodeDenied, "registry %s refuses access to %s", registry, ref).
				WithHint("check the name, or log in with docker login or podman login")
		}
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return banger.Errorf(banger.CodeUnavailable, "registry %s cannot be reached: %w", registry, err).
			WithHint("check the network, or use an image of the catalogue such as debian-bookworm")
	}
	return banger.Errorf(banger.CodeUnavailable, "cannot read %s from its registry: %w", ref, err)
}

// ociLayout reads DIR[:tag]; without a tag the layout must hold one image.
func ociLayout(path string, cleanup func()) (*source, error) {
	dir, tag := path, ""
	if _, err := os.Stat(dir); err != nil {
		if i := strings.LastIndexByte(path, ':'); i > 0 {
			dir, tag = path[:i], path[i+1:]
		}
	}
	bad := func(format string, args ...any) (*source, error) {
		cleanup()
		return nil, banger.Errorf(banger.CodeInvalid, "cannot read the OCI layout %s: %w", dir, fmt.Errorf(format, args...))
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return bad("%w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return bad("%w", err)
	}
	var found []v1.Descriptor
	for _, d := range manifest.Manifests {
		if tag == "" || d.Annotations["org.opencontainers.image.ref.name"] == tag {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return bad("it holds %d images called %q, not one", len(found), tag)
	}
	img, err := pick(index, found[0])
	if err != nil {
		return bad("%w", err)
	}
	return fromImage(img, cleanup)
}

// pick returns the image behind a descriptor, for this platform if it is an index.
func pick(index v1.ImageIndex, d v1.Descriptor) (v1.Image, error) {
	if !d.MediaType.IsIndex() {
		return index.Image(d.Digest)
	}
	nested, err := index.ImageIndex(d.Digest)
	if err != nil {
		return nil, err
	}
	manifest, err := nested.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, m := range manifest.Manifests {
		if m.MediaType.IsImage() && (m.Platform == nil || m.Platform.Satisfies(platform())) {
			return nested.Image(m.Digest)
		}
	}
	return nil, fmt.Errorf("it has no image for linux/%s", runtime.GOARCH)
}

// ociArchive unpacks a tar of an OCI layout beside the store. Its entries are
// blobs named by digest and three known files; nothing else is written.
func (s *Store) ociArchive(ctx context.Context, path string) (*source, error) {
	file, tag := path, ""
	if _, err := os.Stat(file); err != nil {
		if i := strings.LastIndexByte(path, ':'); i > 0 {
			file, tag = path[:i], path[i+1:]
		}
	}
	tmp, err := os.MkdirTemp(filepath.Join(s.dir, "sha256"), tmpPrefix+"*")
	if err != nil {
		return nil, err
	}
	cleanup := func() { os.RemoveAll(tmp) }
	if err := unpackArchive(ctx, file, tmp); err != nil {
		cleanup()
		return nil, banger.Errorf(banger.CodeInvalid, "cannot read the OCI archive %s: %w", file, err)
	}
	at := tmp
	if tag != "" {
		at += ":" + tag
	}
	return ociLayout(at, cleanup)
}

// fromImage converts an image of the library into a source.
func fromImage(img v1.Image, cleanup func()) (_ *source, err error) {
	defer func() {
		if err != nil {
			cleanup()
			err = banger.Errorf(banger.CodeUnavailable, "cannot read the image: %w", err)
		}
	}()
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	if len(cfg.RootFS.DiffIDs) != len(layers) {
		return nil, fmt.Errorf("%d layers, but %d diffIDs", len(layers), len(cfg.RootFS.DiffIDs))
	}
	src := &source{digest: digest.String(), platform: cfg.OS + "/" + cfg.Architecture, close: cleanup, config: banger.ImageConfig{
		Entrypoint: cfg.Config.Entrypoint, Cmd: cfg.Config.Cmd, Env: cfg.Config.Env, WorkingDir: cfg.Config.WorkingDir,
		User: cfg.Config.User, StopSignal: cfg.Config.StopSignal, Labels: cfg.Config.Labels}}
	for i, l := range layers {
		blob, err := l.Digest()
		if err != nil {
			return nil, err
		}
		size, err := l.Size()
		if err != nil {
			return nil, err
		}
		src.layers = append(src.layers, layer{digest: blob.String(), diffID: cfg.RootFS.DiffIDs[i].String(), size: size,
			open: func(context.Context) (io.ReadCloser, error) { return l.Compressed() }})
	}
	return src, checkDigest(src.digest)
}
