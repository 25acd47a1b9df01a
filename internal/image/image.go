// Package image turns a reference into a root file system: it finds the source, fetches its blobs, decodes all layers
// at once while checking every digest, applies them in order to an in-memory tree and writes one ext4 file, named by
// the manifest's digest.
//
// No path of an image is ever opened on the host: names are keys in memory and
// bytes in directory blocks. The package must not know of VMs or of a database.
package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger"
	"banger/internal/blob"
	"banger/internal/pin"
	"banger/internal/registry"
)

// Store is a directory of converted images and the references that name them. Its methods may be called concurrently.
type Store struct {
	dir    string
	blobs  *blob.Store
	remote *registry.Client
	limits Limits

	repairing sync.Mutex // held while a doubted rootfs is made again

	mu      sync.Mutex
	refs    map[string]reference
	flights map[string]*flight
	pins    pin.Set         // of images, by digest
	boot    string          // the boot id of the host
	doubted map[string]bool // digests of images; see stopFile
}

// Options configure a Store. The zero value is valid.
type Options struct {
	Limits   Limits
	Registry registry.Options
	BootID   string // the boot id of the host; "": the kernel's
}

// reference is the meaning of a name.
type reference struct {
	Digest string `json:"digest"`          // of the image's manifest
	Named  string `json:"named,omitempty"` // what the registry's tag named: Digest, or an index that contains it
}

// UnmarshalJSON also reads the form of the first version, which is only the digest.
func (r *reference) UnmarshalJSON(data []byte) error {
	if bytes.HasPrefix(data, []byte(`"`)) {
		return json.Unmarshal(data, &r.Digest)
	}
	type plain reference
	return json.Unmarshal(data, (*plain)(r))
}

// flight is one conversion that several callers may wait for. It ends when the last caller has gone.
type flight struct {
	key     string
	cancel  context.CancelFunc
	done    chan struct{}
	img     banger.Image
	err     error
	waiters map[chan banger.Event]bool
}

const (
	tmpPrefix  = ".tmp-"
	rootfsFile = "rootfs.ext4"
	metaFile   = "image.json"
	refsFile   = "references.json"
)

// Open returns the store in dir. It creates the directory if necessary, and removes what an
// interrupted conversion left there.
func Open(dir string, opts Options) (*Store, error) {
	if err := makeDirs(dir); err != nil {
		return nil, err
	}
	if err := removeUnfinished(dir); err != nil {
		return nil, err
	}
	s := &Store{dir: dir, remote: registry.New(opts.Registry), limits: opts.Limits.orDefaults(),
		refs: map[string]reference{}, flights: map[string]*flight{}}
	var err error
	if s.blobs, err = blob.OpenStore(filepath.Join(dir, "blobs")); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, refsFile))
	if err == nil {
		err = json.Unmarshal(data, &s.refs)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading %s: %w", refsFile, err)
	}
	if err := s.markOpen(opts.BootID); err != nil {
		return nil, fmt.Errorf("reading %s: %w", stopFile, err)
	}
	return s, nil
}

// path returns the directory of a digest. The digest must be valid.
func (s *Store) path(digest string) string {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return filepath.Join(s.dir, algorithm, hex)
}

// RootfsPath returns the path of an image's ext4 file. For a registered image that is the file on
// the host. digest must come from an Image.
func (s *Store) RootfsPath(digest string) string {
	path := filepath.Join(s.path(digest), rootfsFile)
	if foreign, err := os.Readlink(path); err == nil {
		return foreign
	}
	return path
}

func checkDigest(digest string) error {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return banger.Errorf(banger.CodeInvalid, "%.100q is not a sha256 digest", digest)
	}
	return nil
}

// Get returns the converted image with this digest.
func (s *Store) Get(digest string) (banger.Image, error) {
	var img banger.Image
	if err := checkDigest(digest); err != nil {
		return img, err
	}
	data, err := os.ReadFile(filepath.Join(s.path(digest), metaFile))
	if errors.Is(err, fs.ErrNotExist) {
		return img, banger.Errorf(banger.CodeNotFound, "there is no image %s", digest).WithHint("see: banger image ls")
	}
	if err == nil {
		err = json.Unmarshal(data, &img)
	}
	return img, err
}

// Find returns the image that ref names: a reference or a digest.
func (s *Store) Find(ref string) (banger.Image, error) {
	if checkDigest(ref) == nil {
		return s.Get(ref)
	}
	name, err := s.Normalize(ref)
	if err != nil {
		return banger.Image{}, err
	}
	s.mu.Lock()
	r, ok := s.refs[name]
	s.mu.Unlock()
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
	s.mu.Lock()
	refs := maps.Clone(s.refs)
	s.mu.Unlock()
	var list []banger.Image
	for name, ref := range refs {
		img, err := s.Get(ref.Digest)
		if banger.CodeOf(err) == banger.CodeNotFound && !s.means(name, ref) {
			continue // it was just removed
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

// means reports whether name still has the meaning r.
func (s *Store) means(name string, r reference) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refs[name] == r
}

// all returns every image of the store once, without references.
func (s *Store) all() ([]banger.Image, error) {
	dirs, err := os.ReadDir(filepath.Join(s.dir, "sha256"))
	if err != nil {
		return nil, err
	}
	var list []banger.Image
	for _, d := range dirs {
		img, err := s.Get("sha256:" + d.Name())
		if code := banger.CodeOf(err); code == banger.CodeInvalid || code == banger.CodeNotFound {
			continue // unfinished, or just removed
		}
		if err != nil {
			return nil, err
		}
		list = append(list, img)
	}
	return list, nil
}

// saveRefs replaces the references, durably or not at all. The caller holds s.mu.
func (s *Store) saveRefs(refs map[string]reference) error {
	err := blob.WriteJSON(filepath.Join(s.dir, refsFile), refs)
	if err == nil {
		s.refs = refs
	}
	return err
}

// Ensure returns the image that ref names, and fetches and converts it as pull says. platform is
// os/arch[/variant]; "" means this machine's, or that of the stored image. Callers that want the
// same image at the same time share the work, which goes on until the last of them gives up.
func (s *Store) Ensure(ctx context.Context, ref, platform, pull string, emit banger.Emit) (banger.Image, error) {
	name, err := s.Normalize(ref)
	if err != nil {
		return banger.Image{}, err
	}
	want, err := parsePlatform(platform)
	if err != nil {
		return banger.Image{}, err
	}
	if checkDigest(name) == nil {
		img, err := s.Get(name) // a digest does not say where to fetch it
		if err == nil {
			err = s.Ready(ctx, name, emit)
		}
		return img, err
	}
	if pull != banger.PullAlways {
		img, err := s.Find(name)
		if err == nil && platform != "" {
			err = checkPlatform(img, want)
		}
		if err == nil {
			return img, s.Ready(ctx, img.Digest, emit)
		}
		if banger.CodeOf(err) != banger.CodeNotFound {
			return img, err
		}
		if pull == banger.PullNever {
			return img, banger.Errorf(banger.CodeNotFound, "image %q is not here and may not be fetched", ref).
				WithHint("run: banger image pull %s", ref)
		}
	}
	f, events := s.join(name, want)
	for {
		select {
		case e := <-events:
			emit(e)
		case <-f.done:
			s.leave(f, events)
			for len(events) > 0 {
				emit(<-events)
			}
			return f.img, f.err
		case <-ctx.Done():
			if s.leave(f, events) {
				<-f.done // so that the work has ended when we return
			}
			return banger.Image{}, banger.Errorf(banger.CodeCanceled, "canceled while fetching %s: %w", ref, ctx.Err())
		}
	}
}

// checkPlatform returns an error if img is not for the platform want.
func checkPlatform(img banger.Image, want v1.Platform) error {
	have, err := v1.ParsePlatform(img.Platform)
	if err != nil || !have.Satisfies(want) {
		return banger.Errorf(banger.CodeNotFound, "image %s is here for %s, not for %s", img.Reference, img.Platform,
			want.String())
	}
	return nil
}

// join starts the flight for a name and platform, or shares a running one. The caller reads the
// events; an event that comes too fast for the caller is dropped and does not delay the others.
func (s *Store) join(name string, want v1.Platform) (*flight, chan banger.Event) {
	key := flightKey(name, want)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flights[key]
	if f == nil {
		ctx, cancel := context.WithCancel(context.Background())
		f = &flight{key: key, cancel: cancel, done: make(chan struct{}), waiters: map[chan banger.Event]bool{}}
		s.flights[key] = f
		go func() { // ends when the work does; f.cancel ends it early
			defer cancel()
			f.img, f.err = s.fetch(ctx, name, want, func(e banger.Event) { s.tell(f, e) })
			s.mu.Lock()
			if s.flights[key] == f {
				delete(s.flights, key)
			}
			s.mu.Unlock()
			close(f.done)
		}()
	}
	events := make(chan banger.Event, 16)
	f.waiters[events] = true
	return f, events
}

func flightKey(name string, want v1.Platform) string { return name + " " + want.String() }

// leave removes a caller from a flight. It reports whether that was the last caller, which ends the work.
func (s *Store) leave(f *flight, events chan banger.Event) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(f.waiters, events)
	if len(f.waiters) > 0 {
		return false
	}
	f.cancel()
	if s.flights[f.key] == f {
		delete(s.flights, f.key) // a later caller starts a new flight
	}
	return true
}

func (s *Store) tell(f *flight, e banger.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for events := range f.waiters {
		select {
		case events <- e:
		default:
		}
	}
}

// fetch resolves name, fetches and converts the image unless the store has its digest, and records the reference.
func (s *Store) fetch(ctx context.Context, name string, want v1.Platform, emit banger.Emit) (banger.Image, error) {
	m := s.begin("the pull of " + name)
	defer m.end()
	started := time.Now()
	img, named, report, err := s.once(ctx, name, want, m, emit)
	_, noConfig := errors.AsType[configError](err)
	if err != nil && (named != "" || noConfig) && ctx.Err() == nil && isRemote(name) &&
		(errors.Is(err, blob.ErrDigest) || banger.CodeOf(err) == banger.CodeNotFound) {
		// The tag may have moved meanwhile, or a proxy may have mixed two images.
		emit(banger.Event{Stage: "image", Text: "once more with a fresh manifest, since " + err.Error()})
		img, named, report, err = s.once(ctx, name, want, m, emit)
	}
	if err != nil {
		return img, hostError(ctx, name, err)
	}
	if err := s.refer(name, reference{Digest: img.Digest, Named: named}); err != nil {
		return img, err
	}
	img.Reference = name
	emit(banger.Event{Stage: "image", Text: fmt.Sprintf("%s in %.1f s", report, time.Since(started).Seconds()),
		Done: true})
	return img, nil
}

// once resolves name and adds the image that it names now.
func (s *Store) once(ctx context.Context, name string, want v1.Platform, m *making,
	emit banger.Emit) (img banger.Image, named, report string, err error) {
	emit(banger.Event{Stage: "image", Text: "resolving " + name})
	src, err := s.resolve(ctx, name, want, emit)
	if err != nil {
		return img, "", "", err
	}
	defer src.content.close()
	m.hold(src.digest)
	if img, err = s.Get(src.digest); err == nil {
		if s.isDoubted(img.Digest) {
			err = s.repair(ctx, img, src, emit)
		}
		return img, src.named, name + " is here already", err
	}
	img, report, err = s.add(ctx, name, src, emit)
	return img, src.named, report, err
}

// refer sets the meaning of name, durably or not at all.
func (s *Store) refer(name string, r reference) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.Get(r.Digest); err != nil {
		return err // it was removed meanwhile
	}
	refs := maps.Clone(s.refs)
	refs[name] = r
	return s.saveRefs(refs)
}

// hostError describes a failure while an image was fetched or made.
func hostError(ctx context.Context, name string, err error) error {
	switch {
	case ctx.Err() != nil:
		return banger.Errorf(banger.CodeCanceled, "canceled while fetching %s: %w", name, ctx.Err())
	case isNoSpace(err):
		return banger.Errorf(banger.CodeNoSpace, "no space left on the host for image %s: %w", name, err).
			WithHint("free some: banger prune, banger image rm")
	case banger.CodeOf(err) != banger.CodeInternal:
		return err
	}
	return banger.Errorf(banger.CodeBadImage, "cannot make a root file system of %s: %w", name, err)
}

// isNoSpace reports whether the host's disk is full.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// converterVersion is part of a rootfs's identity. It changes when the same layers become other bytes.
const converterVersion = 2

// add makes an image in a temporary directory and publishes it as a whole. It also returns a report for a person.
func (s *Store) add(ctx context.Context, name string, src *source,
	emit banger.Emit) (img banger.Image, report string, err error) {
	tmp, err := os.MkdirTemp(s.tmpDir(), tmpPrefix+"*")
	if err != nil {
		return img, "", err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(tmp)
		}
	}()
	img = banger.Image{Reference: name, Digest: src.digest, ConfigDigest: src.configDigest, Converter: converterVersion,
		Platform: src.platform, Created: src.created, PulledAt: time.Now().UTC(), Config: src.config}
	for _, l := range src.layers {
		img.Blobs = append(img.Blobs, banger.Blob{Digest: l.digest, Size: l.size, MediaType: l.mediaType})
		img.Layers = append(img.Layers, l.diffID)
	}
	if _, err := s.blobs.PutBytes(src.manifest); err != nil {
		return img, "", err
	}
	w := &work{store: s, src: src, emit: emit}
	if err := w.rootfs(ctx, filepath.Join(tmp, rootfsFile), &img); err != nil {
		return img, "", err
	}
	if err := blob.WriteJSON(filepath.Join(tmp, metaFile), img); err != nil {
		return img, "", err
	}
	final := s.path(img.Digest)
	if err := os.Rename(tmp, final); err != nil {
		if !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
			return img, "", err
		}
		os.RemoveAll(tmp) // another call made the same image first
		img, err = s.Get(img.Digest)
		return img, name + " is here already", err
	}
	return img, w.report(name, img), blob.Sync(filepath.Dir(final))
}
