package source

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger/internal/contextio"
)

// Archive is an archive with images that docker, podman or banger wrote.
type Archive struct {
	tar  *archive
	file string // removed by Close
}

// OpenArchive reads an archive from a stream into a temporary file in dir. The caller closes it.
func OpenArchive(ctx context.Context, r io.Reader, dir string) (*Archive, error) {
	file, err := spool(contextio.NewReader(ctx, r), dir)
	if err != nil {
		return nil, err
	}
	a, err := openArchive(ctx, file, dir)
	if err != nil {
		os.Remove(file)
		return nil, archiveError(ctx, "image", "that was sent", err)
	}
	return &Archive{a, file}, nil
}

// Close removes the temporary files. The contents of the archive's images cannot be read afterwards.
func (a *Archive) Close() {
	a.tar.cleanup()
	os.Remove(a.file)
}

// Part is one image of an archive.
type Part struct {
	Content Content  // is closed with the archive
	Names   []string // as they are in the archive, not normalised
}

// Images lists the images of an archive. It reads the index of an OCI layout or, if there is none, docker's list.
func (a *Archive) Images(ctx context.Context) ([]Part, error) {
	if _, ok := a.tar.members["index.json"]; ok {
		return a.ociImages()
	}
	list, err := a.tar.dockerImages()
	if err != nil {
		return nil, archiveError(ctx, "image", "that was sent", err)
	}
	var parts []Part
	for _, one := range list {
		d := &dockerArchive{archive: a.tar, names: map[string]string{}}
		if err := d.assemble(ctx, one); err != nil {
			return nil, archiveError(ctx, "image", "that was sent", err)
		}
		parts = append(parts, Part{d, one.RepoTags})
	}
	return parts, nil
}

// ociImages lists the images of an OCI layout.
func (a *Archive) ociImages() ([]Part, error) {
	layout := &ociLayout{open: a.tar.open, cleanup: func() {}}
	data, err := layout.read("index.json")
	if err != nil {
		return nil, err
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, badImage("index.json of the archive is not valid: %w", notValid(err))
	}
	var parts []Part
	for _, d := range index.Manifests {
		p := Part{Content: &layoutImage{layout, d.Digest.String()}}
		if n := d.Annotations[AnnotationName]; n != "" {
			p.Names = []string{n}
		} else if n := d.Annotations[AnnotationRef]; strings.Contains(n, ":") {
			p.Names = []string{n}
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// layoutImage is one image of a layout that has several.
type layoutImage struct {
	*ociLayout
	digest string
}

func (i *layoutImage) Manifest(ctx context.Context, digest string) ([]byte, error) {
	if digest == "" {
		digest = i.digest
	}
	return i.ociLayout.Manifest(ctx, digest)
}
