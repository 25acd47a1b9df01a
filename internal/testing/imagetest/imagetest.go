// Package imagetest makes images for tests, and describes and checks the file systems that are made of them. It must
// not know how images are kept or converted.
package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/klauspost/compress/zstd"

	"banger/internal/blob"
)

// When is the time of entries that have none.
var When = time.Unix(1700000000, 0)

// Entry is one Entry of a layer's tar, with its content.
type Entry struct {
	tar.Header
	Content string
}

// File returns a regular file.
func File(name, content string) Entry {
	return Entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content}
}

// Dir returns a directory.
func Dir(name string) Entry {
	return Entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}

// Symlink returns a symbolic link.
func Symlink(name, target string) Entry {
	return Entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, ""}
}

// HardLink returns a hard link.
func HardLink(name, target string) Entry {
	return Entry{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}, ""}
}

// Tar returns a layer as a plain tar.
func Tar(entries ...Entry) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.Content))
		h.Format = tar.FormatPAX
		if h.ModTime.IsZero() {
			h.ModTime = When
		}
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		io.WriteString(w, e.Content)
	}
	w.Close()
	return buf.Bytes()
}

// Gzip compresses p.
func Gzip(p []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(p)
	w.Close()
	return buf.Bytes()
}

// Zstd compresses p.
func Zstd(p []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(p, nil)
}

// Layer is one layer as an image stores it. The digests for the config and the manifest may be
// wrong.
type Layer struct {
	Data   string // the bytes of the blob
	DiffID string
	Digest string
}

// Blob returns a layer with any digests.
func Blob(data []byte, diffID, digest string) Layer { return Layer{string(data), diffID, digest} }

// Plain returns a layer that is not compressed.
func Plain(entries ...Entry) Layer {
	p := Tar(entries...)
	return Layer{string(p), blob.Digest(p), blob.Digest(p)}
}

// Packed returns a layer that pack compresses.
func Packed(pack func([]byte) []byte, entries ...Entry) Layer {
	p := Tar(entries...)
	return Layer{string(pack(p)), blob.Digest(p), blob.Digest(pack(p))}
}

// Stored returns a layer of arbitrary bytes with the right digests.
func Stored(data []byte) Layer {
	return Layer{string(data), blob.Digest(data), blob.Digest(data)}
}

// OCIDir writes an OCI layout that holds one image and returns its directory.
func OCIDir(t *testing.T, layers ...Layer) string {
	t.Helper()
	at := t.TempDir()
	if err := os.MkdirAll(filepath.Join(at, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(at, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put := func(mediaType, digest string, data []byte) map[string]any {
		write(filepath.Join("blobs", "sha256", strings.TrimPrefix(digest, "sha256:")), data)
		return map[string]any{"mediaType": mediaType, "digest": digest, "size": len(data)}
	}
	asJSON := func(v any) []byte {
		p, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	diffIDs, descriptors := []string{}, []any{}
	for _, l := range layers {
		diffIDs = append(diffIDs, l.DiffID)
		descriptors = append(descriptors, put("application/vnd.oci.image.layer.v1.tar+gzip", l.Digest, []byte(l.Data)))
	}
	config := asJSON(map[string]any{"os": "linux", "architecture": runtime.GOARCH,
		"config": map[string]any{"Cmd": []string{"/bin/sh"}, "Env": []string{"A=1"}, "User": "7", "WorkingDir": "/w"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
	manifest := asJSON(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": put("application/vnd.oci.image.config.v1+json", blob.Digest(config), config), "layers": descriptors})
	d := put("application/vnd.oci.image.manifest.v1+json", blob.Digest(manifest), manifest)
	d["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "tag"}
	write("index.json", asJSON(map[string]any{"schemaVersion": 2, "manifests": []any{d}}))
	write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return at
}

// OCITar packs an OCI layout as `skopeo copy … oci-archive:` does.
func OCITar(t *testing.T, layout string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if err := w.AddFS(os.DirFS(layout)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// Read returns the image of an OCI layout for the library's writers.
func Read(t *testing.T, dir string) v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return img
}
