package source

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger"
	"banger/internal/blob"
	"banger/internal/image/layer"
)

// held is a content of two blobs: a manifest, and one blob for all other requests.
type held struct{ manifestBody, config []byte }

func (h held) Manifest(context.Context, string) ([]byte, error) { return h.manifestBody, nil }
func (h held) Blob(context.Context, string, int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(h.config)), nil
}
func (h held) Close() {}

// FuzzManifest takes any bytes as a manifest or an index.
func FuzzManifest(f *testing.F) {
	hex := strings.Repeat("0", 64)
	f.Add(
		[]byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:` + hex +
			`","size":2},"layers":[]}`))
	f.Add(
		[]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:` + hex +
			`","size":2,"platform":{"os":"linux","architecture":"amd64"}}]}`))
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}]}`))
	f.Add([]byte(`[]`))
	native, _ := ParsePlatform("")
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := parseManifest(p)
		if err != nil {
			if code := banger.CodeOf(err); code != banger.CodeBadImage {
				t.Errorf("the code of %v is %s", err, code)
			}
			return
		}
		if m.Config == nil {
			_, _ = new(Finder).choose(t.Context(), contents{}, m.Manifests, native)
			return
		}
		for i, l := range m.Layers {
			if checkLayer(i, l) == nil && blob.CheckDigest(l.Digest.String()) != nil {
				t.Errorf("the digest %q passes", l.Digest)
			}
		}
	})
}

// FuzzConfig takes any bytes as the config of an image of one layer.
func FuzzConfig(f *testing.F) {
	hex := strings.Repeat("0", 64)
	f.Add([]byte(`{"os":"linux","architecture":"amd64","config":{"Env":["A=1"],"Cmd":["/bin/sh"],"User":"1:2"},` +
		`"rootfs":{"type":"layers","diff_ids":["sha256:` + hex + `"]}}`))
	f.Add([]byte(`{"rootfs":{"diff_ids":["sha256:x"]},"history":[{"created":"2020-01-01T00:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		layers := []v1.Descriptor{{MediaType: layer.MediaType, Size: 1}}
		m := envelope{SchemaVersion: 2, Config: &v1.Descriptor{}, Layers: layers}
		if err := json.Unmarshal([]byte(`"sha256:`+hex+`"`), &m.Layers[0].Digest); err != nil {
			t.Fatal(err)
		}
		img, err := fromConfig(held{}, nil, &m, p)
		if err != nil {
			if code := banger.CodeOf(err); code != banger.CodeBadImage {
				t.Errorf("the code of %v is %s", err, code)
			}
			return
		}
		if len(img.Layers) != 1 || len(img.Config.Env) > maxEnv || blob.CheckDigest(img.Layers[0].DiffID) != nil {
			t.Errorf("taken: %+v", img)
		}
	})
}

// FuzzReference normalises any text: what it accepts is stable, and is no other kind of
// reference afterwards.
func FuzzReference(f *testing.F) {
	for _, s := range []string{"debian:12", "ghcr.io/a/b@sha256:" + strings.Repeat("a", 64), "oci:/a/b:tag",
		"docker-archive:/x", "podman:a", "localhost:5000/a", "debian-bookworm", "sha256:" + strings.Repeat("a", 64)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		got, err := Normalize(ref)
		if err != nil {
			if banger.CodeOf(err) != banger.CodeInvalid {
				t.Errorf("the error about %q is %v", ref, err)
			}
			return
		}
		again, err := Normalize(got)
		if err != nil || again != got {
			t.Errorf("%q is %q and then %q, %v", ref, got, again, err)
		}
		RepoTag(got)
		IsRemote(got)
	})
}
