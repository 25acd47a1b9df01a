// Package inflate decodes DEFLATE (RFC 1951) and gzip (RFC 1952), the form of nearly all layers of
// images. It is more than twice as fast as klauspost/compress. Its speed limits that of unpacking an
// image.
//
// It must not know of tar, of layers or of images: bytes go in, bytes come out.
//
// It accepts the same input as compress/flate and gives the same output, including the output
// before an error. In the gzip framing it checks ISIZE (RFC 1952 section 2.3.1) but not CRC-32: the
// caller compares a SHA-256 of the output (the diffID) with the expected one, which is stronger. A
// caller without such a digest must not use this package.
//
// The decoder follows the design of libdeflate. Its hot loop (fast.go) loads and stores without
// bounds checks through the helpers in unsafe.go. It is safe to decode untrusted DEFLATE because
// fast.go keeps three rules: it loads input only where 16 bytes of it remain, it stores output only
// below the end of the window's slack, and no distance reaches before the start of its stream.
//
// With the build tag banger_noinflate, and on every architecture except amd64 and arm64, the
// decoder of klauspost/compress is used instead (fallback.go). It also checks the CRC-32.
package inflate

import "errors"

var (
	// ErrHeader means that a gzip member does not start as RFC 1952 section 2.3 requires, or that
	// something other than a member or zeros follows a member.
	ErrHeader = errors.New("inflate: bad gzip header")
	// ErrCorrupt means that the input is not DEFLATE (RFC 1951), or that the length of a member
	// differs from its ISIZE (RFC 1952 section 2.3.1).
	ErrCorrupt = errors.New("inflate: corrupt input")
)
