// Package image keeps root file systems of images. It pulls an image from its source, converts its layers to one ext4
// file, and keeps that file, the layers and the names of images until they are removed. A file system is named by the
// digest of the image's manifest.
//
// The package must not know of VMs or of a database.
package image

import (
	"fmt"
	"path/filepath"
	"runtime"
	"sort"
	"sync"

	"banger"
	"banger/internal/blob"
	"banger/internal/flight"
	"banger/internal/image/convert"
	"banger/internal/image/source"
	"banger/internal/pin"
	"banger/internal/registry"
)

// Store is a directory of converted images and the references that name them. Its methods may be called concurrently.
type Store struct {
	images     directory
	unverified *unverified
	blobs      *blob.Store
	remote     registry.Options
	finder     source.Finder
	limits     Limits
	pulls      flight.Group[*pull] // by pullKey

	repairing sync.Mutex // held while the file system of an unverified image is made again

	mu   sync.Mutex // held while a name gets another meaning, or an image is removed
	refs *references
	pins pin.Set // of images, by digest
}

// Options configure a Store. The zero value is valid.
type Options struct {
	Limits   Limits
	Registry registry.Options
	BootID   string // the boot id of the host; "": the kernel's
	CPULevel int    // level of the guests' CPU, if it is an x86-64: 1 to 4; 0 means 1
}

// Limits bound what one image may make us keep and write.
type Limits = convert.Limits

// HeapLimit is the value that a process which converts images should give debug.SetMemoryLimit, in bytes. The largest
// image needs about 350 MiB, and without a limit the garbage may take as much again.
const HeapLimit = 420 << 20

// Open returns the store in dir. It creates the directory if necessary, and removes what an
// interrupted conversion left there.
func Open(dir string, opts Options) (*Store, error) {
	if err := makeDirs(dir); err != nil {
		return nil, err
	}
	if err := removeUnfinished(dir); err != nil {
		return nil, err
	}
	s := &Store{images: directory{imagesOf(dir)}, remote: opts.Registry, limits: opts.Limits.WithDefaults()}
	var err error
	if s.blobs, err = blob.OpenStore(filepath.Join(dir, "blobs")); err != nil {
		return nil, err
	}
	s.finder = source.Finder{Blobs: s.blobs, Registry: s.remote, Temp: s.images.dir, Level: opts.CPULevel}
	if s.refs, err = openReferences(filepath.Join(dir, refsFile)); err != nil {
		return nil, fmt.Errorf("reading %s: %w", refsFile, err)
	}
	if s.unverified, err = openUnverified(dir, opts.BootID, s.images); err != nil {
		return nil, fmt.Errorf("reading %s: %w", openFile, err)
	}
	if s.unverified.any() {
		return s, s.blobs.MarkUnverified()
	}
	return s, nil
}

// Close notes that the store was closed properly. No other call may be running.
func (s *Store) Close() error { return s.unverified.close() }

// Normalize returns the canonical form of a reference, under which images are listed and compared.
// It returns an *Error of CodeInvalid if ref is not valid.
func (s *Store) Normalize(ref string) (string, error) { return source.Normalize(ref) }

// CheckGuest returns an error if no guest of this host runs images of a platform, os/arch[/variant].
func CheckGuest(platform string) error {
	p, err := source.ParsePlatform(platform)
	if err == nil && p.Architecture != runtime.GOARCH {
		err = banger.Errorf(banger.CodeInvalid, "VMs of this host are linux/%s, and run no image for %s", runtime.GOARCH,
			platform)
	}
	return err
}

// RootfsPath returns the path of an image's ext4 file. For a registered image that is the file on
// the host. digest must come from an Image.
func (s *Store) RootfsPath(digest string) string { return s.images.rootfs(digest) }

// Get returns the converted image with this digest.
func (s *Store) Get(digest string) (banger.Image, error) { return s.images.get(digest) }

// Find returns the image that ref names: a reference or a digest.
func (s *Store) Find(ref string) (banger.Image, error) {
	if blob.CheckDigest(ref) == nil {
		return s.Get(ref)
	}
	name, err := source.Normalize(ref)
	if err != nil {
		return banger.Image{}, err
	}
	r, ok := s.meaning(name)
	if !ok {
		return banger.Image{}, banger.Errorf(banger.CodeNotFound, "there is no image %q", ref).
			WithHint("see: banger image ls")
	}
	img, err := s.Get(r.Digest)
	img.Reference = name
	return img, err
}

// List returns one image for each reference.
func (s *Store) List() ([]banger.Image, error) {
	var list []banger.Image
	for name, ref := range s.allReferences() {
		img, err := s.Get(ref.Digest)
		if banger.CodeOf(err) == banger.CodeNotFound {
			if now, _ := s.meaning(name); now != ref {
				continue // it was just removed
			}
		}
		if err != nil {
			return nil, err
		}
		img.Reference = name
		list = append(list, img)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Reference < list[j].Reference })
	return list, nil
}
