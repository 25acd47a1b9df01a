package source

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"banger/internal/blob"
	"banger/internal/contextio"
	"banger/internal/image/layer"
)

// dockerArchive is what `docker save` writes: a config, layers, and manifest.json, which says which
// of them form an image (moby, image/spec/v1.2). It has no OCI manifest, so one is made from it.
type dockerArchive struct {
	*archive
	body  []byte
	names map[string]string // digest -> member
}

func (d *dockerArchive) Close() { d.cleanup() }

// openDockerArchive opens an image of the form FILE[:name[:tag]].
func openDockerArchive(ctx context.Context, path, dir string) (Content, error) {
	file, name := splitName(path)
	a, err := openArchive(ctx, file, dir)
	if err != nil {
		return nil, archiveError(ctx, "docker", file, err)
	}
	d := &dockerArchive{archive: a, names: map[string]string{}}
	one, err := a.dockerImage(name)
	if err == nil {
		err = d.assemble(ctx, one)
	}
	if err != nil {
		a.cleanup()
		return nil, archiveError(ctx, "docker", file, err)
	}
	return d, nil
}

// DockerManifest is the name of the file that lists the images of a docker archive, as a list of DockerImage.
const DockerManifest = "manifest.json"

// DockerImage is one image of a docker archive. Config and Layers are names of files in the archive.
type DockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerImages lists the images of a docker archive.
func (a *archive) dockerImages() ([]DockerImage, error) {
	data, err := a.readSmall(DockerManifest, MaxManifest)
	if err != nil {
		return nil, err
	}
	var list []DockerImage
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", DockerManifest, notValid(err))
	}
	return list, nil
}

// dockerImage returns the image with the given name. For "" it returns the only image.
func (a *archive) dockerImage(name string) (DockerImage, error) {
	list, err := a.dockerImages()
	if err != nil {
		return DockerImage{}, err
	}
	if name != "" {
		list = slices.DeleteFunc(list, func(d DockerImage) bool {
			return !slices.Contains(d.RepoTags, name) && !slices.Contains(d.RepoTags, name+":latest")
		})
	}
	if len(list) != 1 {
		return DockerImage{}, fmt.Errorf("it holds %d images called %q, not one", len(list), name)
	}
	return list[0], nil
}

// assemble makes the manifest of one image.
func (d *dockerArchive) assemble(ctx context.Context, one DockerImage) (err error) {
	if len(one.Layers) > maxLayers {
		return fmt.Errorf("it names %d layers, but at most %d are allowed", len(one.Layers), maxLayers)
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: ociManifestType, Layers: []v1.Descriptor{}}
	if m.Config, err = d.describe(ctx, one.Config); err != nil {
		return err
	}
	m.Config.MediaType = ociConfigType
	for _, l := range one.Layers {
		desc, err := d.describe(ctx, l)
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, desc)
	}
	d.body, err = json.Marshal(m)
	return err
}

// describe hashes a member, which can then be read like any blob.
func (d *dockerArchive) describe(ctx context.Context, name string) (v1.Descriptor, error) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	f, err := d.open(name)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer f.Close()
	h := sha256.New()
	in := bufio.NewReaderSize(contextio.NewReader(ctx, f), 256<<10)
	head, _ := in.Peek(4)
	size, err := io.Copy(h, in)
	if err != nil {
		return v1.Descriptor{}, err
	}
	digest := blob.DigestOf(h)
	d.names[digest] = name
	hash, err := v1.NewHash(digest)
	return v1.Descriptor{MediaType: types.MediaType(layer.TypeOf(head)), Size: size, Digest: hash}, err
}

func (d *dockerArchive) Manifest(_ context.Context, digest string) ([]byte, error) {
	if digest != "" && digest != blob.Digest(d.body) {
		return nil, badImage("there is no manifest %s in the archive", digest)
	}
	return d.body, nil
}

func (d *dockerArchive) Blob(_ context.Context, digest string, offset int64) (io.ReadCloser, error) {
	f, err := d.open(d.names[digest])
	if err != nil {
		return nil, blob.Permanent(err)
	}
	return from(f, offset)
}
