package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"banger"
	"banger/internal/blob"
	"banger/internal/testing/imagetest"
	"banger/internal/testing/registrytest"
)

type object = map[string]any

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
)

// described writes an OCI layout of one good layer, after change has changed its manifest and
// config. The digests are those of the result.
func described(t *testing.T, change func(manifest, config object)) string {
	t.Helper()
	at := t.TempDir()
	put := func(v any) object {
		data, ok := v.([]byte)
		if !ok {
			var err error
			if data, err = json.Marshal(v); err != nil {
				t.Fatal(err)
			}
		}
		digest := blob.Digest(data)
		path := filepath.Join(at, "blobs/sha256", strings.TrimPrefix(digest, "sha256:"))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return object{"digest": digest, "size": len(data)}
	}
	tar := tarOf(file("f", "x"))
	layer := put(tar)
	layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar"
	config := object{
		"os":           "linux",
		"architecture": runtime.GOARCH,
		"config":       object{},
		"rootfs":       object{"type": "layers", "diff_ids": []string{blob.Digest(tar)}},
	}
	manifest := object{"schemaVersion": 2, "mediaType": manifestType, "layers": []object{layer}}
	change(manifest, config)
	if manifest["config"] == nil {
		manifest["config"] = put(config)
		manifest["config"].(object)["mediaType"] = configType
	}
	if manifest["config"] == "none" {
		delete(manifest, "config")
	}
	d := put(manifest)
	d["mediaType"] = manifestType
	index, err := json.Marshal(object{"schemaVersion": 2, "manifests": []object{d}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"index.json": string(index),
		"oci-layout": `{"imageLayoutVersion":"1.0.0"}`,
	} {
		if err := os.WriteFile(filepath.Join(at, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return "oci:" + at
}

func layersOfManifest(m object) []object { return m["layers"].([]object) }

func TestManifestsAndConfigsThatAreRefused(t *testing.T) {
	zeros := "sha256:" + strings.Repeat("0", 64)
	of := func(mediaType string) func(m, c object) {
		return func(m, c object) { layersOfManifest(m)[0]["mediaType"] = mediaType }
	}
	many := func(n int) func(m, c object) {
		return func(m, c object) {
			one := layersOfManifest(m)[0]
			list, ids := []object{}, []string{}
			for range n {
				list, ids = append(list, one), append(ids, zeros)
			}
			m["layers"], c["rootfs"] = list, object{"type": "layers", "diff_ids": ids}
		}
	}
	for name, c := range map[string]struct {
		change func(m, c object)
		words  string
	}{
		"schema 1":                 {func(m, c object) { m["schemaVersion"] = 1 }, "schema 1"},
		"schema 3":                 {func(m, c object) { m["schemaVersion"] = 3 }, "schema 3"},
		"a foreign layer":          {of("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), "foreign"},
		"a layer not to be copied": {of("application/vnd.oci.image.layer.nondistributable.v1.tar"), "foreign"},
		"a layer elsewhere": {func(m, c object) {
			layersOfManifest(m)[0]["urls"] = []string{"http://169.254.169.254/"}
		}, "foreign"},
		"an encrypted layer":   {of("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), "encrypted"},
		"a layer that is none": {of("text/plain"), "text/plain"},
		"an artifact": {func(m, c object) {
			m["config"] = object{"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": zeros, "size": 2}
		}, "artifact"},
		"no config":     {func(m, c object) { m["config"] = "none" }, "neither a config"},
		"also an index": {func(m, c object) { m["manifests"] = []object{} }, "also an index"},
		"10,000 layers": {many(10000), "10000 layers, but at most"},
		"more layers than diffIDs": {func(m, c object) {
			c["rootfs"] = object{"type": "layers", "diff_ids": []string{}}
		}, "1 layers, but the config 0"},
		"a layer of negative size": {func(m, c object) { layersOfManifest(m)[0]["size"] = -1 }, "-1 bytes"},
		"a layer of exabytes":      {func(m, c object) { layersOfManifest(m)[0]["size"] = 1 << 60 }, "at most"},
		"a layer of another size":  {func(m, c object) { layersOfManifest(m)[0]["size"] = 5 }, "layer 1"},
		"a digest that is a path": {func(m, c object) {
			layersOfManifest(m)[0]["digest"] = "sha256:../../../../etc/passwd"
		}, "not valid"},
		"a digest of another kind": {func(m, c object) {
			layersOfManifest(m)[0]["digest"] = "md5:" + strings.Repeat("0", 32)
		}, "not valid"},
		"a diffID that is none": {func(m, c object) {
			c["rootfs"] = object{"type": "layers", "diff_ids": []string{"../x"}}
		}, "not valid"},
		"another diffID": {func(m, c object) {
			c["rootfs"] = object{"type": "layers", "diff_ids": []string{zeros}}
		}, "as the config says"},
		"100,000 variables": {func(m, c object) {
			c["config"] = object{"Env": strings.Split(strings.Repeat("A=1 ", 100_000), " ")}
		}, "variables, but at most"},
		"a config of 9 MiB": {func(m, c object) { c["author"] = strings.Repeat("x", 9<<20) }, "bytes, but at most"},
		"a manifest of 5 MiB": {func(m, c object) {
			m["annotations"] = object{"a": strings.Repeat("x", 5<<20)}
		}, "more than 4194304 bytes"},
		"a config that is a list": {func(m, c object) { c["config"] = []int{1} }, "not valid"},
		"a config of another digest": {func(m, c object) {
			m["config"] = object{"mediaType": configType, "digest": layersOfManifest(m)[0]["digest"], "size": 3}
		}, "config"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			_, err := s.Ensure(context.Background(), described(t, c.change), "", banger.PullMissing, banger.Discard)
			wantFailure(t, s, err, banger.CodeBadImage, c.words)
		})
	}
}

func TestDockersManifestIsTaken(t *testing.T) {
	s := openStore(t)
	ensure(t, s, described(t, func(m, c object) {
		m["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json"
		layersOfManifest(m)[0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	}))
}

// The following tests use a registry whose image changes, fails or is wrong while it is pulled.

func served(t *testing.T) *registrytest.Server {
	s := registrytest.Start()
	t.Cleanup(s.Close)
	return s
}

func layerFor(pack func([]byte) []byte, entries ...entry) registrytest.Layer {
	p := tarOf(entries...)
	return registrytest.Layer{Stored: pack(p), Plain: p}
}

func quickStore(t *testing.T) *Store {
	s := openStore(t)
	s.blobs.Backoff, s.blobs.Stall = time.Millisecond, 300*time.Millisecond
	return s
}

func TestAPullThroughFaults(t *testing.T) {
	content := strings.Repeat("some content, ", 50_000)
	for name, fault := range map[string]func(*registrytest.Server){
		"the connection breaks, twice": func(s *registrytest.Server) { s.Cut(1000, 2) },
		"nothing comes any more":       func(s *registrytest.Server) { s.Stall(1) },
		"it is busy":                   func(s *registrytest.Server) { s.FailNext(registrytest.Blob, 3, 503, nil) },
		"a manifest is not ready": func(s *registrytest.Server) {
			s.FailNext(registrytest.Manifest, 1, 429, map[string][]string{"Retry-After": {"0"}})
		},
		"a byte is wrong, once":   func(s *registrytest.Server) { s.Corrupt(1) },
		"a blob is missing, once": func(s *registrytest.Server) { s.FailNext(registrytest.Blob, 1, 404, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			r, s := served(t), quickStore(t)
			digest := r.AddImage("a", "v1", layerFor(gzipped, file("f", content)), layerFor(zstded, file("g", content)))
			fault(r)
			if img := ensure(t, s, r.Ref("a", "v1")); img.Digest != digest {
				t.Errorf("it is %s, not %s", img.Digest, digest)
			}
		})
	}
}

func TestAPullThatCannotWork(t *testing.T) {
	for name, c := range map[string]struct {
		fault func(*registrytest.Server)
		code  banger.Code
		words string
	}{
		"wrong bytes, always": {func(s *registrytest.Server) { s.Corrupt(100) }, banger.CodeBadImage, "what the digest says"},
		"busy for ever": {func(s *registrytest.Server) {
			s.FailNext(registrytest.Blob, 1000, 503, nil)
		}, banger.CodeUnavailable, "gave up"},
		"no way in": {func(s *registrytest.Server) {
			s.RequireBasic("me", "secret")
		}, banger.CodeDenied, "refuses access"},
	} {
		t.Run(name, func(t *testing.T) {
			r, s := served(t), quickStore(t)
			r.AddImage("a", "v1", layerFor(gzipped, file("f", "x")))
			c.fault(r)
			_, err := s.Ensure(context.Background(), r.Ref("a", "v1"), "", banger.PullMissing, banger.Discard)
			wantFailure(t, s, err, c.code, c.words)
		})
	}
}

// TestATagThatMoves checks that a check notices a tag that has moved, and that a pull follows it.
func TestATagThatMoves(t *testing.T) {
	r, s := served(t), quickStore(t)
	first := r.AddImage("a", "v1", layerFor(gzipped, file("f", "1")))
	ref := r.Ref("a", "v1")
	ensure(t, s, ref)
	for _, moved := range []bool{false, true} {
		if moved {
			r.AddImage("a", "v1", layerFor(gzipped, file("f", "2")))
		}
		list, err := s.Check(context.Background())
		if err != nil || len(list) != 1 || list[0].Moved != moved {
			t.Errorf("%+v, %v: moved should be %v", list, err, moved)
		}
	}
	if img := ensure(t, s, ref); img.Digest != first {
		t.Error("what is here is not used")
	}
	img, err := s.Ensure(context.Background(), ref, "", banger.PullAlways, banger.Discard)
	if err != nil || img.Digest == first {
		t.Errorf("the pull gives %s, %v", img.Digest, err)
	}
}

// TestPlatforms checks that the image for the requested platform is taken from an index.
func TestPlatforms(t *testing.T) {
	r, s := served(t), quickStore(t)
	var list []object
	for arch, data := range map[string]string{"amd64": "of amd64", "arm64": "of arm64"} {
		digest := r.AddImageFor(arch, "a", arch, layerFor(gzipped, file("f", data)))
		list = append(list, object{
			"mediaType": manifestType,
			"digest":    digest,
			"size":      1,
			"platform":  object{"os": "linux", "architecture": arch},
		})
	}
	index, err := json.Marshal(object{"schemaVersion": 2, "manifests": list})
	if err != nil {
		t.Fatal(err)
	}
	r.AddManifest("a", "v1", "application/vnd.oci.image.index.v1+json", index)
	for _, arch := range []string{"amd64", "arm64"} { // in this order
		img, err := s.Ensure(context.Background(), r.Ref("a", "v1"), "linux/"+arch, banger.PullAlways, banger.Discard)
		if err != nil || !strings.Contains(listing(t, s.RootfsPath(img.Digest)), "of "+arch) {
			t.Errorf("%s: %v", arch, err)
		}
	}
	// The stored image is for arm64; it is used unless another platform is requested.
	for _, c := range []struct{ platform, pull, want string }{
		{"", banger.PullMissing, "of arm64"},
		{"linux/arm64", banger.PullNever, "of arm64"},
		{"linux/amd64", banger.PullMissing, "of amd64"},
	} {
		img, err := s.Ensure(context.Background(), r.Ref("a", "v1"), c.platform, c.pull, banger.Discard)
		if err != nil || !strings.Contains(listing(t, s.RootfsPath(img.Digest)), c.want) {
			t.Errorf("asked for %q, what is here is not %s: %v", c.platform, c.want, err)
		}
	}
	if _, err := s.Ensure(context.Background(), r.Ref("a", "v1"), "linux/arm64", banger.PullNever,
		banger.Discard); banger.CodeOf(err) != banger.CodeNotFound {
		t.Errorf("an image of another platform that may not be fetched: %v", err)
	}
	_, err = s.Ensure(context.Background(), r.Ref("a", "v1"), "linux/riscv64", banger.PullAlways, banger.Discard)
	if banger.CodeOf(err) != banger.CodeNotFound || !strings.Contains(err.Error(), "linux/arm64") {
		t.Errorf("the error is %v", err)
	}
	for _, bad := range []string{"windows/amd64", "linux", "linux/", "a/b/c/d/e"} {
		if _, err := s.Ensure(context.Background(), r.Ref("a", "v1"), bad, banger.PullAlways,
			banger.Discard); banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("the platform %q: %v", bad, err)
		}
	}
}

// TestIndexesWithoutEnd checks that indexes which contain themselves, or which never end, are not
// followed for ever.
func TestIndexesWithoutEnd(t *testing.T) {
	r, s := served(t), quickStore(t)
	next := r.AddImage("a", "v0", layerFor(gzipped, file("f", "x")))
	for i := range 6 {
		body, err := json.Marshal(object{
			"schemaVersion": 2,
			"manifests":     []object{{"digest": next, "size": 1, "mediaType": "application/vnd.oci.image.index.v1+json"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		next = r.AddManifest("a", fmt.Sprint("v", i+1), "application/vnd.oci.image.index.v1+json", body)
	}
	ensure(t, s, r.Ref("a", "v2"))
	_, err := s.Ensure(context.Background(), r.Ref("a", "v6"), "", banger.PullMissing, banger.Discard)
	if banger.CodeOf(err) != banger.CodeBadImage || !strings.Contains(err.Error(), "other indexes") {
		t.Errorf("the error is %v", err)
	}
}

// TestBombs checks that a layer which is small when stored and large when unpacked stops at a
// limit, which can be set.
func TestBombs(t *testing.T) {
	zeros := io.LimitReader(zeroReader{}, 2<<30)
	var bomb bytes.Buffer
	z, err := zstd.NewWriter(&bomb)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(z, io.MultiReader(bytes.NewReader(imagetest.Header("zeros", 2<<30)), zeros)); err != nil {
		t.Fatal(err)
	}
	z.Close()
	for name, c := range map[string]struct {
		limits Limits
		words  string
	}{
		"the ratio":            {Limits{}, "1000 times as many"},
		"a ratio of one's own": {Limits{Ratio: 10}, "10 times as many"},
		"the bytes":            {Limits{Bytes: 1 << 30}, "more than 1 GiB"},
		"the entries":          {Limits{Entries: 0, Bytes: 1 << 20}, "more than 1 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(filepath.Join(t.TempDir(), "images"), Options{Limits: c.limits})
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Ensure(context.Background(), "oci:"+ociDir(t, stored(bomb.Bytes())), "", banger.PullMissing,
				banger.Discard)
			wantFailure(t, s, err, banger.CodeBadImage, c.words)
		})
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestWhatCannotBeCheckedIsSaid checks that a check says of each image why its registry could not be asked.
func TestWhatCannotBeCheckedIsSaid(t *testing.T) {
	r, gone, s := served(t), served(t), quickStore(t)
	for _, at := range []*registrytest.Server{r, gone} {
		at.AddImage("a", "v1", layerFor(gzipped, file("f", at.Addr())))
		ensure(t, s, at.Ref("a", "v1"))
	}
	ensure(t, s, "oci:"+ociDir(t, plain(file("f", "1"))))
	gone.Close()
	r.RequireBasic("me", "hush")
	login := banger.RegistryLogin{Places: []string{r.Addr() + "/a"}, Username: "me", Password: "hush"}
	for _, c := range []struct {
		access banger.RegistryAccess
		want   map[string]string // what is said of an image, by reference
	}{
		{banger.RegistryAccess{},
			map[string]string{r.Ref("a", "v1"): "refuses access", gone.Ref("a", "v1"): "nothing listens"}},
		{banger.RegistryAccess{Logins: []banger.RegistryLogin{login}},
			map[string]string{gone.Ref("a", "v1"): "nothing listens"}},
	} {
		list, err := s.Check(banger.WithRegistryAccess(t.Context(), c.access))
		if err != nil || len(list) != 3 {
			t.Fatalf("%+v, %v", list, err)
		}
		for _, img := range list {
			want := c.want[img.Reference]
			if img.Moved || !strings.Contains(img.Unchecked, want) || (want == "") != (img.Unchecked == "") {
				t.Errorf("%s: %v, %q", img.Reference, img.Moved, img.Unchecked)
			}
		}
	}
	list, err := s.List()
	if err != nil || slices.ContainsFunc(list, func(i banger.Image) bool { return i.Unchecked != "" }) {
		t.Errorf("it is stored: %+v, %v", list, err)
	}
}
