package source

import (
	"strings"
	"testing"

	"banger"
)

// TestNormalizeFollowsDocker lists what people type and the name it is kept by.
func TestNormalizeFollowsDocker(t *testing.T) {
	hex := strings.Repeat("a1", 32)
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
		"debian-bookworm":                    "debian-bookworm", // the recipe wins
		"debian-bookworm-dev":                "debian-bookworm-dev",
		"debian-bookworm:latest":             "docker.io/library/debian-bookworm:latest",
		"docker.io/library/debian-bookworm":  "docker.io/library/debian-bookworm:latest",
		"oci:/a/../b//c:tag":                 "oci:/b/c:tag",
		"oci-archive:/a.tar":                 "oci-archive:/a.tar",
		"docker-archive:/a/./b.tar":          "docker-archive:/a/b.tar",
		"registry.example.com:443/a/b-c_d.e": "registry.example.com:443/a/b-c_d.e:latest",
	} {
		t.Run(ref, func(t *testing.T) {
			got, err := Normalize(ref)
			if err != nil || got != want {
				t.Errorf("Normalize(%q) = %q, %v, not %q", ref, got, err, want)
			}
			if again, err := Normalize(got); err != nil || again != got {
				t.Errorf("Normalize(%q) = %q, %v: not stable", got, again, err)
			}
		})
	}
}

func TestNormalizeRefuses(t *testing.T) {
	for _, ref := range []string{"", " ", "Debian", "debian:", "debian:a b", "de bian",
		"debian:" + strings.Repeat("t", 129), "debian@sha256:12",
		"debian@md5:" + strings.Repeat("0", 32), "http://debian", "../debian", "/debian", "a//b", strings.Repeat("a", 300),
		"debian\x00", "débian",
		"oci:relative", "oci:", "oci-archive:./a.tar", "docker-archive:a.tar", "sha256:"} {
		t.Run(ref, func(t *testing.T) {
			got, err := Normalize(ref)
			if err == nil || banger.CodeOf(err) != banger.CodeInvalid {
				t.Errorf("Normalize(%q) = %q, %v, not an error of code invalid", ref, got, err)
			}
		})
	}
}
