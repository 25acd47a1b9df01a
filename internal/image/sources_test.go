package image

import (
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"banger/internal/testing/imagetest"
)

// TestTheSameImageFromEverySource converts one image read from an OCI layout, an
// OCI archive, a docker archive and a registry.
func TestTheSameImageFromEverySource(t *testing.T) {
	layout := ociDir(t, imagetest.Rich()...)
	img := read(t, layout)
	want, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	docker := filepath.Join(t.TempDir(), "docker.tar")
	if err := tarball.WriteToFile(docker, name.MustParseReference("test/image:tag"), img); err != nil {
		t.Fatal(err)
	}
	archive := ociTar(t, layout)
	for source, c := range map[string]struct {
		ref        string
		sameDigest bool // docker archives have no manifest of their own
	}{
		"OCI layout":             {"oci:" + layout, true},
		"OCI layout with tag":    {"oci:" + layout + ":tag", true},
		"OCI archive":            {"oci-archive:" + archive, true},
		"OCI archive with a tag": {"oci-archive:" + archive + ":tag", true},
		"docker archive":         {"docker-archive:" + docker, false},
		"registry":               {serve(t, img, nil), true},
	} {
		t.Run(source, func(t *testing.T) {
			s := openStore(t)
			got := ensure(t, s, c.ref)
			if c.sameDigest && got.Digest != want.String() {
				t.Errorf("digest %s, not %s", got.Digest, want)
			}
			if len(got.Layers) != 3 || got.Config.User != "7" || got.Config.WorkingDir != "/w" || len(got.Config.Cmd) != 1 {
				t.Errorf("layers or config are lost: %+v", got)
			}
			fsck(t, s.RootfsPath(got.Digest))
			wantListing(t, listing(t, s.RootfsPath(got.Digest)), imagetest.RichListing)
			wantOnly(t, s, got.Digest)
		})
	}
}
