package image

import (
	"context"
	"slices"
	"strings"
	"testing"

	"banger"
)

// TestNormalizeFollowsDocker lists what people type and the name it is kept by.
func TestNormalizeFollowsDocker(t *testing.T) {
	hex := strings.Repeat("a1", 32)
	s := openStore(t)
	for ref, want := range map[string]string{
		"debian":                             "docker.io/library/debian:latest",
		"debian:12":                          "docker.io/library/debian:12",
		"docker.io/debian":                   "docker.io/library/debian:latest",
		"index.docker.io/library/debian":     "docker.io/library/debian:latest",
		"someone/thing":                      "docker.io/someone/thing:latest",
		"docker.io/someone/thing:v1":         "docker.io/someone/thing:v1",
		"ghcr.io/a/b/c:v1":                   "ghcr.io/a/b/c:v1",
		"localhost/thing":                    "localhost/thing:latest",
		"localhost:5000/thing":               "localhost:5000/thing:latest",
		"127.0.0.1:5000/a/b:c":               "127.0.0.1:5000/a/b:c",
		"debian@sha256:" + hex:               "docker.io/library/debian@sha256:" + hex,
		"ghcr.io/a/b:v1@sha256:" + hex:       "ghcr.io/a/b@sha256:" + hex, // the digest decides
		"sha256:" + hex:                      "sha256:" + hex,
		"debian-bookworm":                    "debian-bookworm", // the catalogue wins
		"debian-bookworm-dev":                "debian-bookworm-dev",
		"debian-bookworm:latest":             "docker.io/library/debian-bookworm:latest",
		"docker.io/library/debian-bookworm":  "docker.io/library/debian-bookworm:latest",
		"oci:/a/../b//c:tag":                 "oci:/b/c:tag",
		"oci-archive:/a.tar":                 "oci-archive:/a.tar",
		"docker-archive:/a/./b.tar":          "docker-archive:/a/b.tar",
		"registry.example.com:443/a/b-c_d.e": "registry.example.com:443/a/b-c_d.e:latest",
	} {
		t.Run(ref, func(t *testing.T) {
			got, err := s.Normalize(ref)
			if err != nil || got != want {
				t.Errorf("Normalize(%q) = %q, %v, not %q", ref, got, err, want)
			}
			if again, err := s.Normalize(got); err != nil || again != got {
				t.Errorf("Normalize(%q) = %q, %v: not stable", got, again, err)
			}
		})
	}
}

func TestNormalizeRefuses(t *testing.T) {
	s := openStore(t)
	for _, ref := range []string{"", " ", "Debian", "debian:", "debian:a b", "de bian",
		"debian:" + strings.Repeat("t", 129), "debian@sha256:12",
		"debian@md5:" + strings.Repeat("0", 32), "http://debian", "../debian", "/debian", "a//b", strings.Repeat("a", 300),
		"debian\x00", "débian",
		"oci:relative", "oci:", "oci-archive:./a.tar", "docker-archive:a.tar", "sha256:"} {
		t.Run(ref, func(t *testing.T) {
			got, err := s.Normalize(ref)
			if err == nil || banger.CodeOf(err) != banger.CodeInvalid {
				t.Errorf("Normalize(%q) = %q, %v, not an error of code invalid", ref, got, err)
			}
		})
	}
}

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
	again, err := Open(s.dir, Options{})
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
