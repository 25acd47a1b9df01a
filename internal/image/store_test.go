package image

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
)

// twoNames returns a store with one image under two references, and the references.
func twoNames(t *testing.T) (s *Store, img banger.Image, a, b string) {
	t.Helper()
	at := ociDir(t, plain(file("f", "1")))
	s, a, b = openStore(t), "oci:"+at, "oci:"+at+":tag"
	img = ensure(t, s, a)
	ensure(t, s, b)
	return s, img, a, b
}

// names returns the references of a store. It checks that a newly opened store has the same ones.
func names(t *testing.T, s *Store) []string {
	t.Helper()
	again, err := Open(filepath.Dir(s.images.dir), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var lists [2][]string
	for i, store := range []*Store{s, again} {
		list, err := store.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, img := range list {
			lists[i] = append(lists[i], img.Reference)
		}
	}
	if !slices.Equal(lists[0], lists[1]) {
		t.Errorf("the store lists %q, one opened anew %q", lists[0], lists[1])
	}
	return lists[0]
}

func TestListHasOneImageForEachReference(t *testing.T) {
	s, _, a, b := twoNames(t)
	if got := names(t, s); !slices.Equal(got, []string{a, b}) {
		t.Errorf("the store lists %q, not %q", got, []string{a, b})
	}
}

func TestRemove(t *testing.T) {
	for name, c := range map[string]struct {
		remove func(img banger.Image, a, b string) []string
		left   int  // references
		kept   bool // the image itself
	}{
		"one name":   {func(_ banger.Image, a, _ string) []string { return []string{a} }, 1, true},
		"both names": {func(_ banger.Image, a, b string) []string { return []string{a, b} }, 0, false},
		"the digest": {func(img banger.Image, _, _ string) []string { return []string{img.Digest} }, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, img, a, b := twoNames(t)
			for _, ref := range c.remove(img, a, b) {
				if err := s.Remove(ref, noVM); err != nil {
					t.Fatal(err)
				}
			}
			if got := names(t, s); len(got) != c.left {
				t.Errorf("%q are left, not %d names", got, c.left)
			}
			if c.kept {
				wantOnly(t, s, img.Digest)
			} else {
				wantOnly(t, s)
			}
		})
	}
}

// TestWhatIsNotThere asks in every way for what the store does not have.
func TestWhatIsNotThere(t *testing.T) {
	absent := "sha256:" + strings.Repeat("0", 64)
	for name, ask := range map[string]func(*Store) error{
		"Get":             func(s *Store) error { _, err := s.Get(absent); return err },
		"Find a digest":   func(s *Store) error { _, err := s.Find(absent); return err },
		"Find a name":     func(s *Store) error { _, err := s.Find("debian"); return err },
		"Remove a digest": func(s *Store) error { return s.Remove(absent, noVM) },
		"Remove a name":   func(s *Store) error { return s.Remove("debian", noVM) },
		"Ensure a digest": func(s *Store) error {
			_, err := s.Ensure(context.Background(), absent, "", banger.PullAlways, banger.Discard)
			return err
		},
		"Ensure, no fetch": func(s *Store) error {
			_, err := s.Ensure(context.Background(), "debian", "", banger.PullNever, banger.Discard)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := ask(openStore(t)); err == nil || banger.CodeOf(err) != banger.CodeNotFound {
				t.Errorf("the error is %v, not one of code not_found", err)
			}
		})
	}
}

func TestADigestNamesAnImageToo(t *testing.T) {
	s, img, _, _ := twoNames(t)
	for _, pull := range []string{banger.PullNever, banger.PullMissing, banger.PullAlways} {
		if got, err := s.Ensure(context.Background(), img.Digest, "", pull, banger.Discard); err != nil ||
			got.Digest != img.Digest {
			t.Errorf("Ensure(%s, %s) = %s, %v", img.Digest, pull, got.Digest, err)
		}
	}
}

// TestGetOpensNoPathOutsideTheStore is needed because digests become paths.
func TestGetOpensNoPathOutsideTheStore(t *testing.T) {
	s := openStore(t)
	for _, digest := range []string{"", "sha256:", "sha256:../../etc", "sha512:" + strings.Repeat("0", 64),
		"sha256:" + strings.Repeat("A", 64),
		strings.Repeat("0", 64), "sha256:" + strings.Repeat("0", 61) + "/..", "sha256:" + strings.Repeat("0", 65)} {
		if _, err := s.Get(digest); err == nil || banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("Get(%q): %v, not an error of code invalid", digest, err)
		}
	}
}
