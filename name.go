package banger

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"strings"
)

var (
	nameRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	idRE   = regexp.MustCompile(`^[0-9a-f]{12}$`)
)

// CheckName returns an *Error of CodeInvalid unless name is a DNS label (RFC 1123 section 2.1, lower case). Names are
// used in host names, DNS, paths and ssh configs, so CheckName normalises nothing.
func CheckName(name string) error { return checkLabel(name, "VM name") }

func checkLabel(name, what string) error {
	if nameRE.MatchString(name) {
		return nil
	}
	return Errorf(CodeInvalid, "%.80q is not a valid %s", name, what).
		WithHint("use 1 to 63 lower-case letters, digits and inner hyphens")
}

// CheckHostname returns an *Error of CodeInvalid unless h is one or more DNS labels joined by dots, with at most 64
// bytes in all (Linux HOST_NAME_MAX).
func CheckHostname(h string) error {
	ok := len(h) <= 64
	for label := range strings.SplitSeq(h, ".") {
		ok = ok && nameRE.MatchString(strings.ToLower(label))
	}
	if !ok {
		return Errorf(CodeInvalid, "%q is not a valid host name", h)
	}
	return nil
}

// ValidID reports whether s has the form of a VM id: 12 hex digits.
func ValidID(s string) bool { return idRE.MatchString(s) }

// NewID returns a random VM id.
func NewID() string {
	var b [6]byte
	rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return hex.EncodeToString(b[:])
}
