package blob

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

const algorithm = "sha256:"

// Digest returns the digest of data: sha256: and 64 hexadecimal digits.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return algorithm + hex.EncodeToString(sum[:])
}

// DigestOf returns the digest of everything that was written to h, which is a sha256.
func DigestOf(h hash.Hash) string { return algorithm + hex.EncodeToString(h.Sum(nil)) }

// CheckDigest returns an error unless digest has the form of a sha256 digest. A digest that passes can be part of a
// path.
func CheckDigest(digest string) error {
	digits, ok := strings.CutPrefix(digest, algorithm)
	if !ok || len(digits) != 64 || strings.Trim(digits, "0123456789abcdef") != "" {
		return fmt.Errorf("%.100q is not a sha256 digest", digest)
	}
	return nil
}

// Digits returns the 64 hexadecimal digits of a valid digest.
func Digits(digest string) string { return strings.TrimPrefix(digest, algorithm) }
