package image

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"banger"
)

// archive is a plain tar on the host. Its members are read in place.
type archive struct {
	path    string
	members map[string]member
	cleanup func()
}

type member struct {
	offset, size int64
	link         string // where a symlink leads, inside the archive
}

const maxMembers = 100_000

// openArchive lists the members of a tar. It first unpacks a compressed tar to a temporary file in
// dir, because a compressed tar cannot be read in place.
func openArchive(ctx context.Context, file, dir string) (*archive, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a := &archive{path: file, cleanup: func() {}}
	in := bufio.NewReader(&contextReader{ctx, f})
	plain, stop, err := decompress(in)
	if err != nil {
		return nil, err
	}
	defer stop()
	if plain != io.Reader(in) {
		if a.path, err = spool(plain, dir); err != nil {
			return nil, err
		}
		a.cleanup = func() { os.Remove(a.path) }
	}
	if err := a.list(ctx); err != nil {
		a.cleanup()
		return nil, err
	}
	return a, nil
}

// spool writes r to a temporary file in dir and returns its path. The caller removes the file.
func spool(r io.Reader, dir string) (string, error) {
	f, err := os.CreateTemp(dir, tmpPrefix+"*")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, r)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

func (a *archive) list(ctx context.Context) error {
	f, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	a.members = map[string]member{}
	for tr := tar.NewReader(f); ; {
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
		offset, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		switch {
		case len(a.members) >= maxMembers:
			return fmt.Errorf("it has more than %d members", maxMembers)
		case h.Typeflag == tar.TypeSymlink: // docker's form of a layer that it had already written
			a.members[name] = member{link: strings.TrimPrefix(path.Join("/", path.Dir(name), h.Linkname), "/")}
		case h.Typeflag != tar.TypeReg:
		case offset+h.Size > info.Size(): // the archive is cut off, or sparse
			return fmt.Errorf("%.200q is larger than the archive", h.Name)
		default:
			a.members[name] = member{offset: offset, size: h.Size}
		}
	}
}

// section reads one member.
type section struct {
	*io.SectionReader
	io.Closer
}

func (a *archive) open(name string) (io.ReadSeekCloser, error) {
	m, ok := a.members[name]
	if ok && m.link != "" {
		m, ok = a.members[m.link]
	}
	if !ok || m.link != "" {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f, err := os.Open(a.path)
	if err != nil {
		return nil, err
	}
	return section{io.NewSectionReader(f, m.offset, m.size), f}, nil
}

// openOCIArchive opens an image of the form FILE[:tag].
func openOCIArchive(ctx context.Context, path, dir string) (content, error) {
	file, tag := splitName(path)
	a, err := openArchive(ctx, file, dir)
	if err != nil {
		return nil, archiveError(ctx, "OCI", file, err)
	}
	return &ociLayout{a.open, tag, a.cleanup}, nil
}

func archiveError(ctx context.Context, kind, file string, err error) error {
	if ctx.Err() != nil || isNoSpace(err) {
		return err
	}
	return banger.Errorf(banger.CodeInvalid, "cannot read the %s archive %s: %w", kind, file, err)
}

// dockerArchive is what `docker save` writes: a config, layers, and manifest.json, which says which
// of them form an image (moby, image/spec/v1.2). It has no OCI manifest, so one is made from it.
type dockerArchive struct {
	*archive
	body  []byte
	names map[string]string // digest -> member
}

func (d *dockerArchive) close() { d.cleanup() }

// openDockerArchive opens an image of the form FILE[:name[:tag]].
func openDockerArchive(ctx context.Context, path, dir string) (content, error) {
	file, name := splitName(path)
	a, err := openArchive(ctx, file, dir)
	if err != nil {
		return nil, archiveError(ctx, "docker", file, err)
	}
	d := &dockerArchive{archive: a, names: map[string]string{}}
	one, err := a.named(name)
	if err == nil {
		err = d.assemble(ctx, one)
	}
	if err != nil {
		a.cleanup()
		return nil, archiveError(ctx, "docker", file, err)
	}
	return d, nil
}

// saved is one image in manifest.json.
type saved struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// saved lists the images of an archive.
func (a *archive) saved() ([]saved, error) {
	data, err := a.readSmall("manifest.json", maxManifest)
	if err != nil {
		return nil, err
	}
	var list []saved
	if err := unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	return list, nil
}

// named returns the image with the given name. For "" it returns the only image.
func (a *archive) named(name string) (saved, error) {
	list, err := a.saved()
	if err != nil {
		return saved{}, err
	}
	if name != "" {
		list = slices.DeleteFunc(list, func(s saved) bool {
			return !slices.Contains(s.RepoTags, name) && !slices.Contains(s.RepoTags, name+":latest")
		})
	}
	if len(list) != 1 {
		return saved{}, fmt.Errorf("it holds %d images called %q, not one", len(list), name)
	}
	return list[0], nil
}

// assemble makes the manifest of one image.
func (d *dockerArchive) assemble(ctx context.Context, one saved) (err error) {
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

func (a *archive) readSmall(name string, limit int64) ([]byte, error) {
	f, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return data, err
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
	in := bufio.NewReaderSize(&contextReader{ctx, f}, 256<<10)
	mediaType := types.MediaType(ociLayerType)
	head, _ := in.Peek(4)
	switch {
	case isGzip(head):
		mediaType += "+gzip"
	case isZstd(head):
		mediaType += "+zstd"
	}
	size, err := io.Copy(h, in)
	if err != nil {
		return v1.Descriptor{}, err
	}
	digest := digestOf(h)
	d.names[digest] = name
	hash, err := v1.NewHash(digest)
	return v1.Descriptor{MediaType: mediaType, Size: size, Digest: hash}, err
}

func (d *dockerArchive) manifest(_ context.Context, digest string) ([]byte, error) {
	if digest != "" && digest != digestBytes(d.body) {
		return nil, refused("there is no manifest %s in the archive", digest)
	}
	return d.body, nil
}

func (d *dockerArchive) blob(_ context.Context, digest string, offset int64) (io.ReadCloser, error) {
	f, err := d.open(d.names[digest])
	if err != nil {
		return nil, permanent{err}
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// tmpDir returns the directory where the store keeps what is not finished.
func (s *Store) tmpDir() string { return filepath.Join(s.dir, "sha256") }
