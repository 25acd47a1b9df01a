package image

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"banger"
	"banger/internal/image/source"
)

// storeOf opens the store in dir under a given boot id of the host.
func storeOf(t *testing.T, dir, boot string) *Store {
	t.Helper()
	s, err := Open(dir, Options{BootID: boot})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// spoil changes the middle byte of a file, as a bad disk might.
func spoil(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at, err := f.Seek(0, 2)
	if err != nil {
		t.Fatal(err)
	}
	at = min(at/2, 1024+0x28) // of a rootfs: in its superblock
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0xff
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// beginning returns what a rootfs has where spoil changes it.
func beginning(t *testing.T, s *Store, digest string) string {
	t.Helper()
	f, err := os.Open(s.RootfsPath(digest))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 64<<10)
	if _, err := f.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return string(p)
}

// TestARootfsIsMadeAgainAfterAnUncleanStop checks what happens to a store whose rootfs has changed
// on the disk between two openings, with and without a crash of the host between them.
func TestARootfsIsMadeAgainAfterAnUncleanStop(t *testing.T) {
	for name, c := range map[string]struct {
		close bool
		boot  string
		again bool
	}{
		"the host went down":            {false, "second", true},
		"the daemon alone was killed":   {false, "first", false}, // the page cache is what was written
		"the host was shut down":        {true, "second", false},
		"the daemon ended as it should": {true, "first", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir, ref := t.TempDir(), "oci:"+ociDir(t, packed(gzipped, file("f", "content")))
			s := storeOf(t, dir, "first")
			img := ensure(t, s, ref)
			want := beginning(t, s, img.Digest)
			if c.close {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			spoil(t, s.RootfsPath(img.Digest))
			s = storeOf(t, dir, c.boot)
			if err := s.Ready(context.Background(), img.Digest, banger.Discard); err != nil {
				t.Fatal(err)
			}
			if again := beginning(t, s, img.Digest) == want; again != c.again {
				t.Errorf("made again: %v, not %v", again, c.again)
			}
		})
	}
}

// TestDoubtIsNotForgotten checks that the doubt survives a daemon that is killed before the image
// is used.
func TestDoubtIsNotForgotten(t *testing.T) {
	dir, ref := t.TempDir(), "oci:"+ociDir(t, packed(gzipped, file("f", "content")))
	s := storeOf(t, dir, "first")
	img := ensure(t, s, ref)
	want := beginning(t, s, img.Digest)
	spoil(t, s.RootfsPath(img.Digest))
	storeOf(t, dir, "second")
	s = storeOf(t, dir, "second")
	if err := s.Ready(context.Background(), img.Digest, banger.Discard); err != nil {
		t.Fatal(err)
	}
	if beginning(t, s, img.Digest) != want {
		t.Error("the damaged rootfs is used")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s = storeOf(t, dir, "third"); s.unverified.has(img.Digest) {
		t.Error("a store that was closed in order is doubted")
	}
}

// TestADamagedLayerIsFetchedAgain checks that a layer that is damaged as well is named, and that a
// pull replaces it.
func TestADamagedLayerIsFetchedAgain(t *testing.T) {
	dir, ref := t.TempDir(), "oci:"+ociDir(t, packed(gzipped, file("f", "content")))
	s := storeOf(t, dir, "first")
	img := ensure(t, s, ref)
	want := beginning(t, s, img.Digest)
	spoil(t, s.RootfsPath(img.Digest))
	spoil(t, s.blobs.Path(img.Blobs[0].Digest))
	s = storeOf(t, dir, "second")
	_, err := s.Ensure(context.Background(), ref, "", banger.PullMissing, banger.Discard)
	if banger.CodeOf(err) != banger.CodeBadImage {
		t.Fatalf("the error about a damaged layer is %v", err)
	}
	if _, err := s.Ensure(context.Background(), ref, "", banger.PullAlways, banger.Discard); err != nil {
		t.Fatal(err)
	}
	if beginning(t, s, img.Digest) != want {
		t.Error("the rootfs is not what it was")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "sha256", source.TempPrefix+"*")); left != nil {
		t.Errorf("%q are left", left)
	}
}
