package layer

import (
	"context"
	"crypto/sha256"
	"io"

	"github.com/klauspost/compress/gzip"

	"banger/internal/blob"
)

// Pack stores a plain tar as a layer. It uses the fastest compression, because it must not delay the program that
// makes the tar.
func Pack(blobs *blob.Store, tar io.Reader) (Descriptor, error) {
	plain := sha256.New()
	pr, pw := io.Pipe()
	go func() { // ends when the stream does, or when the store stops reading
		z, err := gzip.NewWriterLevel(pw, gzip.BestSpeed)
		if err == nil {
			if _, err = io.Copy(io.MultiWriter(plain, z), tar); err == nil {
				err = z.Close()
			}
		}
		pw.CloseWithError(err)
	}()
	digest, size, err := blobs.Put(context.Background(), pr)
	pr.CloseWithError(err)
	if err != nil {
		return Descriptor{}, err
	}
	return Descriptor{Digest: digest, DiffID: blob.DigestOf(plain), Size: size, MediaType: MediaType + "+gzip"}, nil
}
