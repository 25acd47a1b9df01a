package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
)

// layoutFile matches what an OCI layout consists of (image-layout.md).
var layoutFile = regexp.MustCompile(`^(\./)?(oci-layout|index\.json|blobs/sha256/[0-9a-f]{64})$`)

// unpackArchive writes the files of an OCI layout in a tar to dir.
func unpackArchive(ctx context.Context, file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir || !layoutFile.MatchString(h.Name) {
			continue
		}
		if h.Typeflag != tar.TypeReg {
			return fmt.Errorf("%q is no regular file", h.Name)
		}
		if h.Size > info.Size() { // holes, which would be written out here
			return fmt.Errorf("%q is larger than the archive", h.Name)
		}
		out, err := os.OpenFile(filepath.Join(dir, filepath.Clean(h.Name)), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, &contextReader{ctx, tr})
		if cerr := out.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
}
