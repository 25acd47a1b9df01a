// Package layer knows the layers of images as bytes: how a layer is described, compressed, hashed and packed, and how
// the progress of several layers is shown. It must not know where a layer comes from, nor which files it holds.
package layer

import (
	"bufio"
	"bytes"
	"io"

	"github.com/klauspost/compress/zstd"

	"banger/internal/inflate"
)

// MediaType is the OCI type of a layer that is not compressed. The types of compressed layers start with it.
const MediaType = "application/vnd.oci.image.layer.v1.tar"

// Descriptor describes one layer. The layers of an image are ordered from the oldest on.
type Descriptor struct {
	Digest    string // of the blob as it is stored
	DiffID    string // digest of the plain tar
	Size      int64  // of the blob, in bytes
	MediaType string
}

// maxWindow is the most memory that a zstd layer may ask for, in bytes.
const maxWindow = 128 << 20

// Decompress returns the plain bytes of a layer, and a function that frees the decoder. It recognises gzip, zstd and
// plain tar by their first bytes: registries sometimes mislabel layers, and the diffID is checked in any case.
func Decompress(in *bufio.Reader) (plain io.Reader, free func(), err error) {
	head, err := in.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	switch {
	case isGzip(head):
		z := inflate.NewReader(in)
		return z, func() { z.Close() }, nil
	case isZstd(head): // its own checksum would be a third check after the digest and the diffID
		r, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow),
			zstd.IgnoreChecksum(true))
		if err != nil {
			return nil, nil, err
		}
		return r, r.Close, nil
	}
	return in, func() {}, nil
}

// TypeOf returns the media type of a layer that starts with head, which has at least 4 bytes if the layer has.
func TypeOf(head []byte) string {
	switch {
	case isGzip(head):
		return MediaType + "+gzip"
	case isZstd(head):
		return MediaType + "+zstd"
	}
	return MediaType
}

func isGzip(head []byte) bool { return bytes.HasPrefix(head, []byte{0x1f, 0x8b}) }

// isZstd reports whether head starts a zstd frame, or a skippable frame (RFC 8878).
func isZstd(head []byte) bool {
	return bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}) || len(head) == 4 && head[0]&0xf0 == 0x50 &&
		bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18})
}
