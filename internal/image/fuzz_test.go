package image

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger"
	"banger/internal/ext4"
)

// memory is a sparse file in memory, for a file system that is not mounted.
type memory struct {
	mu     sync.Mutex
	blocks map[int64][]byte
}

const memoryBlock = 64 << 10

func newMemory() *memory { return &memory{blocks: map[int64][]byte{}} }

func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := 0; n < len(p); {
		i, from := (at+int64(n))/memoryBlock, int((at+int64(n))%memoryBlock)
		if m.blocks[i] == nil {
			m.blocks[i] = make([]byte, memoryBlock)
		}
		n += copy(m.blocks[i][from:], p[n:])
	}
	return len(p), nil
}

func (m *memory) Truncate(size int64) error { return nil }

// FuzzLayer reads any bytes as a layer, and again as the layer above itself, and writes
// the file system that they are: a result or a refusal, never a panic.
func FuzzLayer(f *testing.F) {
	for _, l := range richImage() {
		p := []byte(l.data)
		if r, closeReader, err := plainOf(p); err == nil {
			if q, err := io.ReadAll(r); err == nil {
				p = q
			}
			closeReader()
		}
		f.Add(p)
	}
	f.Add(tarOf(symlink("a", "b"), symlink("b", "a"), file("a/f", ""), hardLink("h", "a/f")))
	f.Add(tarOf(file("d/.wh..wh..opq", ""), file(".wh.d", ""), dir("d"), hardLink("d/x", "d/y"), file("d/y", "1")))
	f.Add(holes("f", 1<<20))
	f.Add(append(globalHeader(), tarOf(file("../../f", "x"))...))
	f.Fuzz(func(t *testing.T, p []byte) {
		limits := &budget{Limits: Limits{Bytes: 8 << 20, Entries: 1000, Ratio: 1000}}
		w, err := ext4.New(newMemory(), ext4.Options{Size: ext4.MinSize})
		if err != nil {
			t.Fatal(err)
		}
		areas, tr := w.Areas(2), newTree(w)
		for _, a := range areas {
			list, err := readLayer(context.Background(), bytes.NewReader(p), a, limits)
			if cerr := a.Close(); err == nil {
				err = cerr
			}
			if err == nil {
				err = tr.apply(list)
			}
			if err != nil {
				for _, a := range areas {
					a.Close()
				}
				return
			}
		}
		_ = w.Finish(tr.root) // may be refused for its size
	})
}

func plainOf(p []byte) (io.Reader, func(), error) {
	return decompress(bufio.NewReader(bytes.NewReader(p)))
}

// held is a content of two blobs: a manifest, and one blob for all other requests.
type held struct{ manifestBody, config []byte }

func (h held) manifest(context.Context, string) ([]byte, error) { return h.manifestBody, nil }
func (h held) blob(context.Context, string, int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(h.config)), nil
}
func (h held) close() {}

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
	native, _ := parsePlatform("")
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := parseManifest(p)
		if err != nil {
			if code := banger.CodeOf(err); code != banger.CodeBadImage {
				t.Errorf("the code of %v is %s", err, code)
			}
			return
		}
		if m.Config == nil {
			_, _ = choose(m.Manifests, native)
			return
		}
		for i, l := range m.Layers {
			if checkLayer(i, l) == nil && checkDigest(l.Digest.String()) != nil {
				t.Errorf("the digest %q passes", l.Digest)
			}
		}
	})
}

// FuzzConfig takes any bytes as the config of an image of one layer.
func FuzzConfig(f *testing.F) {
	hex := strings.Repeat("0", 64)
	f.Add([]byte(`{"os":"linux","architecture":"amd64","config":{"Env":["A=1"],"Cmd":["/bin/sh"],"User":"1:2"},"rootfs":{"type":"layers","diff_ids":["sha256:` + hex + `"]}}`))
	f.Add([]byte(`{"rootfs":{"diff_ids":["sha256:x"]},"history":[{"created":"2020-01-01T00:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		m := envelope{SchemaVersion: 2, Config: &v1.Descriptor{}, Layers: []v1.Descriptor{{MediaType: ociLayerType, Size: 1}}}
		if err := json.Unmarshal([]byte(`"sha256:`+hex+`"`), &m.Layers[0].Digest); err != nil {
			t.Fatal(err)
		}
		src, err := fromConfig(held{}, nil, &m, p)
		if err != nil {
			if code := banger.CodeOf(err); code != banger.CodeBadImage {
				t.Errorf("the code of %v is %s", err, code)
			}
			return
		}
		if len(src.layers) != 1 || len(src.config.Env) > maxEnv || checkDigest(src.layers[0].diffID) != nil {
			t.Errorf("taken: %+v", src)
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
	s := &Store{}
	f.Fuzz(func(t *testing.T, ref string) {
		got, err := s.Normalize(ref)
		if err != nil {
			if banger.CodeOf(err) != banger.CodeInvalid {
				t.Errorf("the error about %q is %v", ref, err)
			}
			return
		}
		again, err := s.Normalize(got)
		if err != nil || again != got {
			t.Errorf("%q is %q and then %q, %v", ref, got, again, err)
		}
		repoTag(got)
		isRemote(got)
	})
}
