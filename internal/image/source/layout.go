package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger"
	"banger/internal/blob"
)

// Annotations of the images in an index.json.
const (
	AnnotationName = "io.containerd.image.name"          // the whole reference
	AnnotationRef  = "org.opencontainers.image.ref.name" // only the tag (annotations.md)
)

// ociLayout is an OCI image layout (image-layout.md) in a directory or a tar.
type ociLayout struct {
	open    func(name string) (io.ReadSeekCloser, error)
	tag     string // "" if it must hold exactly one image
	cleanup func()
}

// openLayout opens an image of the form DIR[:tag].
func openLayout(path string) (Content, error) {
	dir, tag := splitName(path)
	if _, err := os.Stat(filepath.Join(dir, "index.json")); err != nil {
		return nil, banger.Errorf(banger.CodeInvalid, "cannot read the OCI layout %s: %w", dir, reason(err))
	}
	open := func(name string) (io.ReadSeekCloser, error) { return os.Open(filepath.Join(dir, name)) }
	return &ociLayout{open, tag, func() {}}, nil
}

// splitName splits s into a path that exists on the host and the name of an image. The name may
// itself contain colons.
func splitName(s string) (path, name string) {
	for i := len(s); i > 0; i = strings.LastIndexByte(s[:i], ':') {
		if _, err := os.Stat(s[:i]); err == nil {
			return s[:i], strings.TrimPrefix(s[i:], ":")
		}
	}
	return s, ""
}

func (l *ociLayout) Close() { l.cleanup() }

// read returns a small file of the layout.
func (l *ociLayout) read(name string) ([]byte, error) {
	f, err := l.open(name)
	if err != nil {
		return nil, banger.Errorf(banger.CodeInvalid, "cannot read the OCI layout: %w", reason(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxManifest+1))
	if err == nil && len(data) > MaxManifest {
		err = fmt.Errorf("%s has more than %d bytes", name, MaxManifest)
	}
	if err != nil {
		return nil, badImage("cannot read the OCI layout: %w", reason(err))
	}
	return data, nil
}

func (l *ociLayout) Manifest(_ context.Context, digest string) ([]byte, error) {
	if digest == "" {
		index, err := l.read("index.json")
		if err != nil {
			return nil, err
		}
		d, err := l.tagged(index)
		if err != nil {
			return nil, err
		}
		digest = d.Digest.String()
	}
	name, err := blobName(digest)
	if err != nil {
		return nil, err
	}
	data, err := l.read(name)
	if err == nil && blob.Digest(data) != digest {
		err = badImage("the manifest in the OCI layout is %s, not %s", blob.Digest(data), digest)
	}
	return data, err
}

// tagged returns the manifest that the tag names in an index.json.
func (l *ociLayout) tagged(data []byte) (v1.Descriptor, error) {
	var index v1.IndexManifest
	if err := json.Unmarshal(data, &index); err != nil {
		return v1.Descriptor{}, banger.Errorf(banger.CodeInvalid, "index.json of the OCI layout is not valid: %w",
			notValid(err))
	}
	var found []v1.Descriptor
	var names []string
	for _, d := range index.Manifests {
		name := d.Annotations[AnnotationRef]
		names = append(names, name)
		if l.tag == "" || name == l.tag || strings.HasSuffix(name, ":"+l.tag) {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return v1.Descriptor{}, banger.Errorf(banger.CodeInvalid,
			"the OCI layout holds %d images called %q, not one; its names are %.300q", len(found), l.tag, names)
	}
	return found[0], nil
}

func (l *ociLayout) Blob(_ context.Context, digest string, offset int64) (io.ReadCloser, error) {
	name, err := blobName(digest)
	if err != nil {
		return nil, err
	}
	f, err := l.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, blob.Permanent(badImage("the blob %s is not in the OCI layout", digest))
	}
	if err != nil {
		return nil, err
	}
	return from(f, offset)
}

// blobName returns the name of a blob in a layout. It checks the digest, since the name becomes a path.
func blobName(digest string) (string, error) {
	if err := blob.CheckDigest(digest); err != nil {
		return "", badImage("the OCI layout: %w", err)
	}
	return "blobs/sha256/" + blob.Digits(digest), nil
}
