package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger"
	"banger/internal/blob"
)

// Limits for what describes an image, in bytes or elements.
const (
	maxManifest = 4 << 20 // the limit of registries
	maxConfig   = 8 << 20
	maxLayers   = 1000
	maxEnv      = 10000
	maxIndexes  = 4 // nested indexes
)

// content is a source of manifests and blobs: a registry, an OCI layout, or an archive.
type content interface {
	// manifest returns the manifest or index with a digest; "" means the one that the reference names.
	// It returns at most maxManifest bytes, which match the digest.
	manifest(ctx context.Context, digest string) (data []byte, err error)
	// blob returns the bytes from offset on. They are not verified.
	blob(ctx context.Context, digest string, offset int64) (io.ReadCloser, error)
	close()
}

// envelope is what manifests and indexes of all kinds have in common.
type envelope struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        *v1.Descriptor    `json:"config"`
	Layers        []v1.Descriptor   `json:"layers"`
	Manifests     []v1.Descriptor   `json:"manifests"`
	FSLayers      []any             `json:"fsLayers"` // schema 1
	Annotations   map[string]string `json:"annotations"`
}

// unmarshal decodes JSON from an untrusted source.
func unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// refused returns an error about an image that is valid but that we do not accept.
func refused(format string, args ...any) *banger.Error {
	return banger.Errorf(banger.CodeBadImage, format, args...)
}

// parsePlatform parses os/arch[/variant]. "" means this machine's platform.
func parsePlatform(s string) (v1.Platform, error) {
	if s == "" {
		return v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, nil
	}
	p, err := v1.ParsePlatform(s)
	if err != nil || p.OS != "linux" || p.Architecture == "" {
		return v1.Platform{}, banger.Errorf(banger.CodeInvalid, "%.100q is no platform of Linux", s).
			WithHint("write it like linux/amd64")
	}
	return *p, nil
}

// CheckGuest returns an error if no guest of this host runs images of a platform, os/arch[/variant].
func CheckGuest(platform string) error {
	p, err := parsePlatform(platform)
	if err == nil && p.Architecture != runtime.GOARCH {
		err = banger.Errorf(banger.CodeInvalid, "VMs of this host are linux/%s, and run no image for %s", runtime.GOARCH,
			platform)
	}
	return err
}

// resolveContent reads the manifest and the config of c's image for a platform (image-spec
// manifest.md, image-index.md).
func (s *Store) resolveContent(ctx context.Context, c content, want v1.Platform) (*source, error) {
	data, err := c.manifest(ctx, "")
	if err != nil {
		return nil, err
	}
	named := digestBytes(data)
	for range maxIndexes {
		m, err := parseManifest(data)
		if err != nil {
			return nil, err
		}
		if m.Config != nil {
			src, err := s.fromManifest(ctx, c, data, m)
			if err != nil {
				return nil, err
			}
			src.named = named
			return src, nil
		}
		d, err := choose(m.Manifests, want)
		if err != nil {
			return nil, err
		}
		if data, err = c.manifest(ctx, d.Digest.String()); err != nil {
			return nil, err
		}
	}
	return nil, refused("the index of the image leads to more than %d other indexes", maxIndexes)
}

// parseManifest parses a manifest or index and checks what can be checked without its blobs.
func parseManifest(data []byte) (*envelope, error) {
	var m envelope
	if err := unmarshal(data, &m); err != nil {
		return nil, refused("the manifest is not valid: %w", err)
	}
	switch {
	case m.SchemaVersion == 1 || m.FSLayers != nil:
		return nil, refused("the image has a manifest of schema 1, which has no digests of its contents").
			WithHint("push it again with a current docker or podman")
	case m.SchemaVersion != 2:
		return nil, refused("the manifest is of schema %d, not 2", m.SchemaVersion)
	case m.Config == nil && m.Manifests == nil:
		return nil, refused("the manifest names neither a config nor other manifests")
	case m.Config != nil && m.Manifests != nil:
		return nil, refused("the manifest is also an index")
	case len(m.Layers) > maxLayers || len(m.Manifests) > maxLayers:
		return nil, refused("the manifest names %d layers, but at most %d are allowed", max(len(m.Layers), len(m.Manifests)),
			maxLayers)
	}
	return &m, nil
}

// choose returns the manifest in an index that fits the platform best. Of several equal ones it returns the first.
func choose(list []v1.Descriptor, want v1.Platform) (v1.Descriptor, error) {
	var have []string
	for _, d := range list {
		if d.Platform == nil || d.Platform.Satisfies(want) {
			return d, nil
		}
		have = append(have, d.Platform.String())
	}
	return v1.Descriptor{}, banger.Errorf(banger.CodeNotFound, "the image is not there for %s, only for %.300s",
		want.String(), strings.Join(have, ", ")).
		WithHint("choose another with --platform")
}

func (s *Store) fromManifest(ctx context.Context, c content, data []byte, m *envelope) (*source, error) {
	if err := checkDescriptor("config", *m.Config, maxConfig); err != nil {
		return nil, err
	}
	if t := string(m.Config.MediaType); t != "" && t != string(ociConfigType) && t != string(dockerConfigType) {
		return nil, refused("it is no image but an artifact of the type %.100q", t)
	}
	rawConfig, err := s.readConfig(ctx, c, *m.Config)
	if err != nil {
		return nil, err
	}
	return fromConfig(c, data, m, rawConfig)
}

// fromConfig returns a source that is made from a manifest and its config.
func fromConfig(c content, data []byte, m *envelope, rawConfig []byte) (*source, error) {
	cfg, err := v1.ParseConfigFile(bytes.NewReader(rawConfig))
	if err != nil {
		return nil, refused("the config of the image is not valid: %w", err)
	}
	switch {
	case len(cfg.RootFS.DiffIDs) != len(m.Layers):
		return nil, refused("the manifest names %d layers, but the config %d", len(m.Layers), len(cfg.RootFS.DiffIDs))
	case len(cfg.Config.Env) > maxEnv:
		return nil, refused("the config sets %d variables, but at most %d are allowed", len(cfg.Config.Env), maxEnv)
	}
	src := &source{content: c, manifest: data, digest: digestBytes(data), configDigest: m.Config.Digest.String(),
		platform: (&v1.Platform{OS: cfg.OS, Architecture: cfg.Architecture, Variant: cfg.Variant}).String(),
		created:  cfg.Created.Time,
		config: banger.ImageConfig{Entrypoint: cfg.Config.Entrypoint, Cmd: cfg.Config.Cmd, Env: cfg.Config.Env,
			WorkingDir: cfg.Config.WorkingDir, User: cfg.Config.User, StopSignal: cfg.Config.StopSignal,
			Labels: cfg.Config.Labels, Exposed: slices.Sorted(maps.Keys(cfg.Config.ExposedPorts))}}
	for i, d := range m.Layers {
		if err := checkLayer(i, d); err != nil {
			return nil, err
		}
		src.layers = append(src.layers, layer{digest: d.Digest.String(), diffID: cfg.RootFS.DiffIDs[i].String(),
			size: d.Size, mediaType: string(d.MediaType)})
	}
	return src, nil
}

const (
	ociManifestType  = "application/vnd.oci.image.manifest.v1+json"
	ociConfigType    = "application/vnd.oci.image.config.v1+json"
	dockerConfigType = "application/vnd.docker.container.image.v1+json"
	ociLayerType     = "application/vnd.oci.image.layer.v1.tar"
	dockerLayerType  = "application/vnd.docker.image.rootfs.diff.tar"
)

// checkLayer returns an error for a layer of an unsupported type. The compression is recognised by
// the layer's first bytes, whatever the type says.
func checkLayer(i int, d v1.Descriptor) error {
	t := string(d.MediaType)
	switch {
	case strings.Contains(t, ".foreign.") || strings.Contains(t, "nondistributable") || len(d.URLs) > 0:
		return layerRefused(i, "it is a foreign layer, which is not in the registry but elsewhere")
	case strings.HasSuffix(t, "+encrypted"):
		return layerRefused(i, "it is encrypted")
	case !strings.HasPrefix(t, ociLayerType) && !strings.HasPrefix(t, dockerLayerType):
		return layerRefused(i, fmt.Sprintf("its type is %.100q", t))
	}
	return checkDescriptor(fmt.Sprintf("layer %d", i+1), d, 1<<40)
}

func layerRefused(i int, why string) error { return refused("layer %d is refused: %s", i+1, why) }

func checkDescriptor(what string, d v1.Descriptor, limit int64) error {
	if err := checkDigest(d.Digest.String()); err != nil {
		return refused("the digest of the %s: %w", what, err)
	}
	if d.Size < 0 || d.Size > limit {
		return refused("the %s has %d bytes, but at most %d are allowed", what, d.Size, limit)
	}
	return nil
}

// readConfig stores a config as a blob, checks it and returns it.
func (s *Store) readConfig(ctx context.Context, c content, d v1.Descriptor) ([]byte, error) {
	err := s.blobs.Fetch(ctx, blobSource(c, d.Digest.String(), d.Size))
	if errors.Is(err, blob.ErrDigest) {
		err = refused("the config of the image is not what the manifest says: %w", err)
	}
	if err != nil {
		return nil, configError{err}
	}
	return s.blobs.ReadAll(ctx, d.Digest.String(), maxConfig)
}

// configError is the error for a config that a manifest names and that cannot be read.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

// blobSource returns the source from which the store fetches a blob of c.
func blobSource(c content, digest string, size int64) blob.Source {
	return blob.Source{Digest: digest, Size: size, Open: func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		return c.blob(ctx, digest, offset)
	}}
}
