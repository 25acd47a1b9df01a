// Package inflate decodes DEFLATE (RFC 1951) and gzip (RFC 1952), the form in
// which nearly all layers of images arrive, at more than twice the speed of
// klauspost/compress: unpacking an image is bound by it.
//
// It must not know of tar, of layers or of images: bytes go in, bytes come out.
//
// What is accepted and what comes out is what compress/flate accepts and gives,
// including the output before an error. In the gzip framing ISIZE is checked
// (RFC 1952 section 2.3.1) and CRC-32 is not: the caller compares a SHA-256 of
// the output (the diffID) with what it expects, which is stronger. A caller
// without such a digest must not use this package.
//
// The decoder follows the design of libdeflate. Its hot loop (fast.go) loads and
// stores without bounds checks through the helpers of unsafe.go; DEFLATE from
// anywhere is safe to decode because of three rules that fast.go keeps: input is
// loaded only where 16 bytes of it remain, output is stored only below the end
// of the window's slack, and no distance reaches before the start of its stream.
//
// The build tag banger_noinflate, and every architecture but amd64 and arm64,
// replaces the decoder by that of klauspost/compress (fallback.go), which also
// checks the CRC-32.
package inflate

import "errors"

var (
	// ErrHeader says that a gzip member does not start as RFC 1952 section 2.3
	// wants it, or that something other than a member or zeros follows one.
	ErrHeader = errors.New("inflate: bad gzip header")
	// ErrCorrupt says that the input is not DEFLATE (RFC 1951), or that a member
	// is not as long as its ISIZE (RFC 1952 section 2.3.1).
	ErrCorrupt = errors.New("inflate: corrupt input")
)
