package image

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"banger"
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
	ociDir, ociTar, read   = imagetest.OCIDir, imagetest.OCITar, imagetest.Read

	fsck, listing, wantListing = imagetest.Fsck, imagetest.Listing, imagetest.WantListing
)

// serve starts a registry that holds the image as test/image:tag and returns the
// reference. Requests of readers pass through gate first.
func serve(t *testing.T, img v1.Image, gate func(*http.Request)) string {
	t.Helper()
	reg := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	open := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if open {
			gate(r)
		}
		reg.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	ref := strings.TrimPrefix(server.URL, "http://") + "/test/image:tag"
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
	open = gate != nil
	return ref
}

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "images"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ensure(t *testing.T, s *Store, ref string) banger.Image {
	t.Helper()
	img, err := s.Ensure(context.Background(), ref, "", banger.PullMissing, banger.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// wantOnly fails the test unless the store has exactly these images and no trace of an unfinished
// one.
func wantOnly(t *testing.T, s *Store, digests ...string) {
	t.Helper()
	entries, err := os.ReadDir(s.images.dir)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, e := range entries {
		got = append(got, "sha256:"+e.Name())
	}
	want = append(want, digests...)
	sort.Strings(want)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the store holds %q, not %q", got, want)
	}
}
