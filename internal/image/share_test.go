package image

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
)

// sharing returns a store with two images that have one base.
func sharing(t *testing.T) (s *Store, a, b banger.Image) {
	t.Helper()
	base := packed(gzipped, file("base", "of both"))
	s = openStore(t)
	a = ensure(t, s, "oci:"+ociDir(t, base, packed(gzipped, file("a", "1"))))
	b = ensure(t, s, "oci:"+ociDir(t, base, packed(zstded, file("b", "2"))))
	return s, a, b
}

func TestTagSharesEverything(t *testing.T) {
	s, a, _ := sharing(t)
	tagged, err := s.Tag(a.Reference, "mine:v1")
	if err != nil || tagged.Digest != a.Digest || tagged.Reference != "docker.io/library/mine:v1" {
		t.Fatalf("Tag gives %s as %s, %v", tagged.Digest, tagged.Reference, err)
	}
	if err := s.Remove(a.Reference, noVM); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find("mine:v1"); err != nil {
		t.Errorf("the other name is gone too: %v", err)
	}
	for _, bad := range []string{"", "debian-bookworm", "UPPER", "mine@" + a.Digest} {
		if _, err := s.Tag("mine:v1", bad); banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("Tag as %q: %v", bad, err)
		}
	}
}

// TestImagesOfOneConfigShareTheirFileSystem checks that two manifests with one config have one file
// system, which is linked and not made again.
func TestImagesOfOneConfigShareTheirFileSystem(t *testing.T) {
	s := openStore(t)
	a := ensure(t, s, "oci:"+ociDir(t, packed(gzipped, file("f", "1"))))
	b := ensure(t, s, "oci:"+ociDir(t, packed(zstded, file("f", "1"))))
	if a.Digest == b.Digest || a.ConfigDigest != b.ConfigDigest {
		t.Fatalf("the test's images are %v and %v", a, b)
	}
	one, err := os.Stat(s.RootfsPath(a.Digest))
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.Stat(s.RootfsPath(b.Digest))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(one, two) {
		t.Error("they have two files")
	}
}

func TestUsageSaysWhatIsShared(t *testing.T) {
	s, a, _ := sharing(t)
	list, err := s.Usage()
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, u := range list {
		if u.Shared != a.Blobs[0].Size || u.Rootfs == 0 || u.Blobs <= u.Shared {
			t.Errorf("%+v: shared is not the base, %d bytes", u, a.Blobs[0].Size)
		}
	}
}

func TestPruneKeepsWhatIsNeeded(t *testing.T) {
	for name, c := range map[string]struct {
		all, dryRun bool
		used        func(a banger.Image) Users
		images      int // removed
		left        int
	}{
		"named ones stay": {false, false, func(banger.Image) Users { return noVM }, 0, 2},
		"all":             {true, false, func(banger.Image) Users { return noVM }, 2, 0},
		"a VM uses one": {true, false, func(a banger.Image) Users {
			return func(d string) string { return map[string]string{a.Digest: "box"}[d] }
		}, 1, 1},
		"only to say what": {true, true, func(banger.Image) Users { return noVM }, 2, 2},
		"a VM uses each of two": {true, false, func(banger.Image) Users {
			return func(string) string { return "box" }
		}, 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, _ := sharing(t)
			p, err := s.Prune(c.all, c.dryRun, c.used(a))
			if err != nil || len(p.Images) != c.images {
				t.Fatalf("%+v, %v: not %d images", p, err, c.images)
			}
			left, err := s.images.all()
			if err != nil || len(left) != c.left {
				t.Fatalf("%d images are left, not %d (%v)", len(left), c.left, err)
			}
			needed := map[string]bool{}
			for _, img := range left {
				for _, d := range blobsOf(img) {
					needed[d] = true
				}
			}
			blobs, err := s.blobs.List()
			if err != nil || len(blobs) != len(needed) {
				t.Errorf("%d blobs are there and %d needed (%v)", len(blobs), len(needed), err)
			}
		})
	}
}

// TestPruneRemovesHalfFetchedBlobs checks that the next prune removes what a cancelled fetch has
// left.
func TestPruneRemovesHalfFetchedBlobs(t *testing.T) {
	s, _, _ := sharing(t)
	half := filepath.Join(filepath.Dir(s.images.dir), "blobs/partial",
		strings.Repeat("00112233445566778899aabbccddeeff", 2))
	if err := os.WriteFile(half, make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := s.Prune(false, false, noVM)
	if err != nil || p.Blobs != 1 || p.Bytes != 4096 {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := os.Stat(half); err == nil {
		t.Error("it is there still")
	}
}

// TestSaveAndLoad checks that a saved archive gives the same images in another store.
func TestSaveAndLoad(t *testing.T) {
	s, a, b := sharing(t)
	if _, err := s.Tag(a.Reference, "first:v1"); err != nil {
		t.Fatal(err)
	}
	e, err := s.Export([]string{"first:v1", b.Reference})
	if err != nil {
		t.Fatal(err)
	}
	var tar bytes.Buffer
	if err := e.Write(context.Background(), &tar); err != nil {
		t.Fatal(err)
	}
	for name, pack := range map[string]func([]byte) []byte{
		"plain": func(p []byte) []byte { return p },
		"gzip":  gzipped,
		"zstd":  zstded,
	} {
		t.Run(name, func(t *testing.T) {
			other := openStore(t)
			list, err := other.Load(context.Background(), bytes.NewReader(pack(bytes.Clone(tar.Bytes()))), banger.Discard)
			if err != nil || len(list) != 2 {
				t.Fatalf("%v, %v", list, err)
			}
			if list[0].Reference != "docker.io/library/first:v1" || list[0].Digest != a.Digest || list[1].Digest != b.Digest {
				t.Errorf("loaded are %s %s and %s", list[0].Reference, list[0].Digest, list[1].Digest)
			}
			if listing(t, other.RootfsPath(a.Digest)) != listing(t, s.RootfsPath(a.Digest)) {
				t.Error("the file systems differ")
			}
		})
	}
}

// TestASavedArchiveIsADockerArchive checks that manifest.json of a saved archive is complete: the
// docker daemon reads it, and so do we if the rest is missing.
func TestASavedArchiveIsADockerArchive(t *testing.T) {
	s, a, _ := sharing(t)
	if _, err := s.Tag(a.Reference, "first:v1"); err != nil {
		t.Fatal(err)
	}
	e, err := s.Export([]string{"first:v1"})
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(t.TempDir(), "saved.tar")
	f, err := os.Create(at)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := e.Write(context.Background(), f); err != nil {
		t.Fatal(err)
	}
	other := openStore(t)
	img := ensure(t, other, "docker-archive:"+at)
	if img.ConfigDigest != a.ConfigDigest ||
		listing(t, other.RootfsPath(img.Digest)) != listing(t, s.RootfsPath(a.Digest)) {
		t.Error("it is another image")
	}
}

func TestHistoryNamesEveryLayer(t *testing.T) {
	s, a, _ := sharing(t)
	steps, err := s.History(context.Background(), a.Reference)
	if err != nil {
		t.Fatal(err)
	}
	var layers []string
	for _, step := range steps {
		if step.Layer != "" {
			layers = append(layers, step.Layer)
		}
	}
	if want := []string{a.Blobs[1].Digest, a.Blobs[0].Digest}; !slices.Equal(layers, want) {
		t.Errorf("%q, not %q", layers, want)
	}
}

// TestAStoreOfTheFirstVersionIsRead checks a store in the form of the first version: names lead
// only to digests, and images do not mention blobs.
func TestAStoreOfTheFirstVersionIsRead(t *testing.T) {
	s, a, _ := sharing(t)
	if err := os.WriteFile(s.refs.file, []byte(`{"docker.io/library/old:v1": "`+a.Digest+`"}`),
		0o644); err != nil {
		t.Fatal(err)
	}
	again, err := Open(filepath.Dir(s.images.dir), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if img, err := again.Find("old:v1"); err != nil || img.Digest != a.Digest {
		t.Errorf("%s, %v", img.Digest, err)
	}
}
