package blob

import (
	"crypto/sha256"
	"strings"
	"testing"
)

// TestDigests checks the form of digests with the known sum of no bytes.
func TestDigests(t *testing.T) {
	const want = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if got := Digest(nil); got != want {
		t.Errorf("Digest returns %s", got)
	}
	if got := DigestOf(sha256.New()); got != want {
		t.Errorf("DigestOf returns %s", got)
	}
	if err := CheckDigest(want); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", want[7:], want[:70], want + "0", strings.ToUpper(want), "sha512:" + want[7:],
		"sha256:../" + want[10:]} {
		if CheckDigest(bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
