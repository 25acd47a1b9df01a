package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger"
	"banger/internal/blob"
	"banger/internal/image/layer"
)

// Limits for the files that describe an image, in bytes.
const (
	MaxManifest = 4 << 20 // the limit of registries
	MaxConfig   = 8 << 20
)

// Limits for the content of these files, in elements.
const (
	maxLayers  = 1000
	maxEnv     = 10000
	maxIndexes = 4 // nested indexes
)

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

// badImage returns an error about an image that is not valid or that we do not accept.
func badImage(format string, args ...any) *banger.Error {
	return banger.Errorf(banger.CodeBadImage, format, args...)
}

// Read reads the manifest and the config of the image in c for a platform (image-spec manifest.md, image-index.md). The
// caller closes c, in any case.
func (f *Finder) Read(ctx context.Context, c Content, platform v1.Platform) (*Image, error) {
	data, err := c.Manifest(ctx, "")
	if err != nil {
		return nil, err
	}
	named := blob.Digest(data)
	var chosen *v1.Platform // by an index
	for range maxIndexes {
		m, err := parseManifest(data)
		if err != nil {
			return nil, err
		}
		if m.Config != nil {
			img, err := f.fromManifest(ctx, c, data, m)
			if err != nil {
				return nil, err
			}
			img.Named = named
			return img, f.complete(img, chosen, platform)
		}
		d, err := f.choose(ctx, c, m.Manifests, platform)
		if err != nil {
			return nil, err
		}
		chosen = d.Platform
		if data, err = c.Manifest(ctx, d.Digest.String()); err != nil {
			return nil, err
		}
	}
	return nil, badImage("the index of the image leads to more than %d other indexes", maxIndexes)
}

// MediaType returns the type that a manifest says it has, or "".
func MediaType(manifest []byte) string {
	m, err := parseManifest(manifest)
	if err != nil {
		return ""
	}
	return m.MediaType
}

// parseManifest parses a manifest or index and checks what can be checked without its blobs.
func parseManifest(data []byte) (*envelope, error) {
	var m envelope
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, badImage("the manifest is not valid: %w", notValid(err))
	}
	switch {
	case m.SchemaVersion == 1 || m.FSLayers != nil:
		return nil, badImage("the image has a manifest of schema 1, which has no digests of its contents").
			WithHint("push it again with a current docker or podman")
	case m.SchemaVersion != 2:
		return nil, badImage("the manifest is of schema %d, not 2", m.SchemaVersion)
	case m.Config == nil && m.Manifests == nil:
		return nil, badImage("the manifest names neither a config nor other manifests")
	case m.Config != nil && m.Manifests != nil:
		return nil, badImage("the manifest is also an index")
	case len(m.Layers) > maxLayers || len(m.Manifests) > maxLayers:
		return nil, badImage("the manifest names %d layers, but at most %d are allowed", max(len(m.Layers), len(m.Manifests)),
			maxLayers)
	}
	return &m, nil
}

// fromManifest reads the config that a manifest names.
func (f *Finder) fromManifest(ctx context.Context, c Content, data []byte, m *envelope) (*Image, error) {
	if err := checkDescriptor("config", *m.Config, MaxConfig); err != nil {
		return nil, err
	}
	if t := string(m.Config.MediaType); t != "" && t != string(ociConfigType) && t != string(dockerConfigType) {
		return nil, badImage("it is not an image but an artifact of the type %.100q", t)
	}
	rawConfig, err := f.readConfig(ctx, c, *m.Config)
	if err != nil {
		return nil, err
	}
	return fromConfig(c, data, m, rawConfig)
}

// healthOf returns the probe of an image's health check, which docker's configs have beside those of OCI. It is nil
// without one, and for one that cannot be tried.
func healthOf(h *v1.HealthConfig) *banger.Probe {
	if h == nil || len(h.Test) < 2 {
		return nil
	}
	p := banger.Probe{Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, Retries: h.Retries}
	switch h.Test[0] {
	case "CMD":
		p.Args = h.Test[1:]
	case "CMD-SHELL":
		p.Check = "cmd:" + h.Test[1]
	default:
		return nil
	}
	if p.Validate() != nil {
		return nil
	}
	return &p
}

// fromConfig returns the image that a manifest and its config describe.
func fromConfig(c Content, data []byte, m *envelope, rawConfig []byte) (*Image, error) {
	cfg, err := v1.ParseConfigFile(bytes.NewReader(rawConfig))
	if err != nil {
		return nil, badImage("the config of the image is not valid: %w", notValid(err))
	}
	switch {
	case len(cfg.RootFS.DiffIDs) != len(m.Layers):
		return nil, badImage("the manifest names %d layers, but the config %d", len(m.Layers), len(cfg.RootFS.DiffIDs))
	case len(cfg.Config.Env) > maxEnv:
		return nil, badImage("the config sets %d variables, but at most %d are allowed", len(cfg.Config.Env), maxEnv)
	}
	img := &Image{
		Content:      c,
		RawManifest:  data,
		Digest:       blob.Digest(data),
		ConfigDigest: m.Config.Digest.String(),
		Platform:     (&v1.Platform{OS: cfg.OS, Architecture: cfg.Architecture, Variant: cfg.Variant}).String(),
		Created:      cfg.Created.Time,
		Config: banger.ImageConfig{
			Entrypoint: cfg.Config.Entrypoint,
			Cmd:        cfg.Config.Cmd,
			Env:        cfg.Config.Env,
			WorkingDir: cfg.Config.WorkingDir,
			User:       cfg.Config.User,
			StopSignal: cfg.Config.StopSignal,
			Labels:     cfg.Config.Labels,
			Exposed:    slices.Sorted(maps.Keys(cfg.Config.ExposedPorts)),
			Volumes:    slices.Sorted(maps.Keys(cfg.Config.Volumes)),
			Health:     healthOf(cfg.Config.Healthcheck),
		},
	}
	for i, d := range m.Layers {
		if err := checkLayer(i, d); err != nil {
			return nil, err
		}
		img.Layers = append(img.Layers, layer.Descriptor{
			Digest:    d.Digest.String(),
			DiffID:    cfg.RootFS.DiffIDs[i].String(),
			Size:      d.Size,
			MediaType: string(d.MediaType),
		})
	}
	return img, nil
}

const (
	ociManifestType  = "application/vnd.oci.image.manifest.v1+json"
	ociConfigType    = "application/vnd.oci.image.config.v1+json"
	dockerConfigType = "application/vnd.docker.container.image.v1+json"
	dockerLayerType  = "application/vnd.docker.image.rootfs.diff.tar"
)

// checkLayer returns an error for a layer of an unsupported type. The compression is recognised by
// the layer's first bytes, whatever the type says.
func checkLayer(i int, d v1.Descriptor) error {
	t := string(d.MediaType)
	switch {
	case strings.Contains(t, ".foreign.") || strings.Contains(t, "nondistributable") || len(d.URLs) > 0:
		return badLayer(i, "it is a foreign layer, which is not in the registry but elsewhere")
	case strings.HasSuffix(t, "+encrypted"):
		return badLayer(i, "it is encrypted")
	case !strings.HasPrefix(t, layer.MediaType) && !strings.HasPrefix(t, dockerLayerType):
		return badLayer(i, fmt.Sprintf("its type is %.100q", t))
	}
	return checkDescriptor(fmt.Sprintf("layer %d", i+1), d, 1<<40)
}

// badLayer returns an error about layer i, counted from 0.
func badLayer(i int, why string) error { return badImage("layer %d is refused: %s", i+1, why) }

// checkDescriptor returns an error for a descriptor without a digest, or of more than limit bytes.
func checkDescriptor(what string, d v1.Descriptor, limit int64) error {
	if err := blob.CheckDigest(d.Digest.String()); err != nil {
		return badImage("the digest of the %s: %w", what, err)
	}
	if d.Size < 0 || d.Size > limit {
		return badImage("the %s has %d bytes, but at most %d are allowed", what, d.Size, limit)
	}
	return nil
}

// readConfig stores a config as a blob, checks it and returns it.
func (f *Finder) readConfig(ctx context.Context, c Content, d v1.Descriptor) ([]byte, error) {
	err := f.Blobs.Fetch(ctx, blobSource(c, d.Digest.String(), d.Size))
	if errors.Is(err, blob.ErrDigest) {
		err = badImage("the config of the image is not what the manifest says: %w", err)
	}
	if err != nil {
		return nil, ConfigError{err}
	}
	return f.Blobs.ReadAll(ctx, d.Digest.String(), MaxConfig)
}

// ConfigError is the error for a config that a manifest names and that cannot be read.
type ConfigError struct{ error }

// Unwrap returns the cause.
func (e ConfigError) Unwrap() error { return e.error }
