package convert

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/image/layer"
	"banger/internal/testing/imagetest"
)

// These are short names for what tests use most.
type (
	entry     = imagetest.Entry
	layerBlob = imagetest.Layer
)

var (
	file, dir, symlink, hardLink = imagetest.File, imagetest.Dir, imagetest.Symlink, imagetest.HardLink

	tarOf, gzipped, zstded = imagetest.Tar, imagetest.Gzip, imagetest.Zstd
	plain, packed, stored  = imagetest.Plain, imagetest.Packed, imagetest.Stored

	fsck, listing, wantListing = imagetest.Fsck, imagetest.Listing, imagetest.WantListing
)

// build makes a file system of layers and checks it with e2fsck.
func build(t *testing.T, layers ...layerBlob) (path string, r Result) {
	t.Helper()
	var list []layer.Descriptor
	data := map[string]string{}
	for _, l := range layers {
		list = append(list, layer.Descriptor{Digest: l.Digest, DiffID: l.DiffID, Size: int64(len(l.Data))})
		data[l.Digest] = l.Data
	}
	path = filepath.Join(t.TempDir(), "rootfs.ext4")
	r, err := Rootfs(t.Context(), path, list, Options{
		Open: func(_ context.Context, l layer.Descriptor) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(data[l.Digest])), nil
		},
		Emit: banger.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	fsck(t, path)
	return path, r
}

// convert returns the listing of a file system of the layers.
func convert(t *testing.T, layers ...layerBlob) string {
	t.Helper()
	path, _ := build(t, layers...)
	return listing(t, path)
}
