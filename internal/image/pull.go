package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger"
	"banger/internal/blob"
	"banger/internal/flight"
	"banger/internal/image/convert"
	"banger/internal/image/source"
	"banger/internal/reserve"
)

// Ensure returns the image that ref names, and fetches and converts it as policy, a pull policy, says. platform is
// os/arch[/variant]; "" means this machine's, or that of the stored image. Registries get the banger.RegistryAccess of
// ctx. Callers that want the same image at the same time with the same access share the work, which goes on until the
// last of them gives up.
func (s *Store) Ensure(ctx context.Context, ref, platform, policy string, emit banger.Emit) (banger.Image, error) {
	name, err := source.Normalize(ref)
	if err != nil {
		return banger.Image{}, err
	}
	p, err := source.ParsePlatform(platform)
	if err != nil {
		return banger.Image{}, err
	}
	if blob.CheckDigest(name) == nil {
		img, err := s.Get(name) // a digest does not say where to fetch it
		if err == nil {
			err = s.Ready(ctx, name, emit)
		}
		return img, err
	}
	if policy != banger.PullAlways {
		img, err := s.Find(name)
		if err == nil && platform != "" {
			err = source.CheckPlatform(img, p, s.finder.Level)
		}
		if err == nil {
			return img, s.Ready(ctx, img.Digest, emit)
		}
		if banger.CodeOf(err) != banger.CodeNotFound {
			return img, err
		}
		if policy == banger.PullNever {
			return img, banger.Errorf(banger.CodeNotFound,
				"image %q is not stored here, and the pull policy forbids fetching it", ref).
				WithHint("run: banger image pull %s", ref)
		}
	}
	return s.pull(ctx, ref, name, p, emit)
}

// pull is one fetch and conversion that several callers may wait for.
type pull struct {
	img banger.Image // the result, when the work has ended

	mu        sync.Mutex
	listeners map[chan banger.Event]bool
}

// listen sends events to a channel. An event that comes too fast for its reader is dropped and does not delay the
// others.
func (p *pull) listen(events chan banger.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listeners[events] = true
}

// ignore stops sending events to a channel.
func (p *pull) ignore(events chan banger.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.listeners, events)
}

// emit sends an event to all channels.
func (p *pull) emit(e banger.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for events := range p.listeners {
		select {
		case events <- e:
		default:
		}
	}
}

// pullKey returns the key of a pull. Callers with other logins or proxies have another key. So nobody gets what the
// registry gives only to somebody else, and nobody fails because of another's login.
func pullKey(name string, platform v1.Platform, access banger.RegistryAccess) string {
	data, _ := json.Marshal(access) // strings can always be written
	return name + " " + platform.String() + " " + blob.Digest(data)
}

// pull fetches the image ref, whose normalised form is name, or waits for a running fetch of the same image.
func (s *Store) pull(ctx context.Context, ref, name string, platform v1.Platform,
	emit banger.Emit) (banger.Image, error) {
	events := make(chan banger.Event, 16)
	f, err := s.join(ctx, name, platform, events)
	if err != nil {
		return banger.Image{}, canceled(ctx, ref)
	}
	for {
		select {
		case e := <-events:
			emit(e)
		case <-f.Done():
			f.Leave()
			for len(events) > 0 {
				emit(<-events)
			}
			return f.Value.img, f.Err()
		case <-ctx.Done():
			f.Value.ignore(events)
			if f.Leave() {
				<-f.Done() // so that the work has ended when this call returns
			}
			return banger.Image{}, canceled(ctx, ref)
		}
	}
}

// join starts the pull of a name for a platform, or shares a running one. Its events go to a channel. The error is that
// of the context.
func (s *Store) join(ctx context.Context, name string, platform v1.Platform,
	events chan banger.Event) (*flight.Flight[*pull], error) {
	access := banger.RegistryAccessOf(ctx)
	begin := func() (*pull, error) { return &pull{listeners: map[chan banger.Event]bool{events: true}}, nil }
	run := func(ctx context.Context, p *pull) (err error) {
		p.img, err = s.fetch(banger.WithRegistryAccess(ctx, access), name, platform, p.emit)
		return err
	}
	for {
		f, joined, err := s.pulls.Join(pullKey(name, platform, access), begin, run)
		if err != nil {
			return nil, err
		}
		if joined {
			f.Value.listen(events)
			return f, nil
		}
		select {
		case <-f.Done(): // all its callers gave up
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// fetch resolves name, fetches and converts the image unless the store has its digest, and records the reference.
func (s *Store) fetch(ctx context.Context, name string, platform v1.Platform, emit banger.Emit) (banger.Image, error) {
	t := s.begin("the pull of " + name)
	defer t.end()
	started := time.Now()
	img, named, report, err := s.attempt(ctx, name, platform, t, emit)
	_, noConfig := errors.AsType[source.ConfigError](err)
	if err != nil && (named != "" || noConfig) && ctx.Err() == nil && source.IsRemote(name) &&
		(errors.Is(err, blob.ErrDigest) || banger.CodeOf(err) == banger.CodeNotFound) {
		// The tag may have moved meanwhile, or a proxy may have mixed two images.
		emit(banger.Event{Stage: "image", Text: "once more with a fresh manifest, since " + err.Error()})
		img, named, report, err = s.attempt(ctx, name, platform, t, emit)
	}
	if err != nil {
		return img, pullError(ctx, name, err)
	}
	if err := s.refer(name, reference{Digest: img.Digest, Named: named}); err != nil {
		return img, err
	}
	img.Reference = name
	emit(banger.Event{Stage: "image", Text: fmt.Sprintf("%s in %.1f s", report, time.Since(started).Seconds()),
		Done: true})
	return img, nil
}

// attempt resolves name and adds the image that it names now. It also returns the digest that the name has in its
// registry, and a report for a person.
func (s *Store) attempt(ctx context.Context, name string, platform v1.Platform, t *task,
	emit banger.Emit) (img banger.Image, named, report string, err error) {
	emit(banger.Event{Stage: "image", Text: "resolving " + name})
	src, err := s.finder.Find(ctx, name, platform, emit)
	if err != nil {
		return img, "", "", err
	}
	defer src.Close()
	t.pin(src.Digest)
	if img, err = s.Get(src.Digest); err == nil {
		if s.unverified.has(img.Digest) {
			err = s.repair(ctx, img, src, emit)
		}
		return img, src.Named, name + " is here already", err
	}
	img, report, err = s.add(ctx, name, src, emit)
	return img, src.Named, report, err
}

// pullError describes a failure while an image was fetched or made.
func pullError(ctx context.Context, name string, err error) error {
	switch {
	case ctx.Err() != nil:
		return canceled(ctx, name)
	case reserve.IsFull(err):
		return banger.Errorf(banger.CodeNoSpace, "no space left on the host for image %s: %w", name, err).
			WithHint("free some: banger prune, banger image rm")
	case banger.CodeOf(err) != banger.CodeInternal:
		return err
	case errors.Is(err, blob.ErrShort):
		return banger.Errorf(banger.CodeUnavailable, "cannot fetch %s: %w", name, err).
			WithHint("try again later: what has come is kept")
	}
	return banger.Errorf(banger.CodeBadImage, "cannot make a root file system of %s: %w", name, err)
}

// canceled returns the error for a caller that gave up.
func canceled(ctx context.Context, name string) error {
	e := banger.Canceled(ctx.Err())
	e.Message += " while fetching " + name
	return e
}

// add makes an image in a temporary directory and publishes it as a whole. It also returns a report for a person.
func (s *Store) add(ctx context.Context, name string, src *source.Image,
	emit banger.Emit) (img banger.Image, report string, err error) {
	tmp, err := s.images.temp()
	if err != nil {
		return img, "", err
	}
	defer os.RemoveAll(tmp) // removes nothing if it was published
	img = banger.Image{
		Reference:    name,
		Digest:       src.Digest,
		ConfigDigest: src.ConfigDigest,
		Converter:    convert.Version,
		Platform:     src.Platform,
		Created:      src.Created,
		PulledAt:     time.Now().UTC(),
		Config:       src.Config,
	}
	for _, l := range src.Layers {
		img.Blobs = append(img.Blobs, banger.Blob{Digest: l.Digest, Size: l.Size, MediaType: l.MediaType})
		img.Layers = append(img.Layers, l.DiffID)
	}
	if _, err := s.blobs.PutBytes(src.RawManifest); err != nil {
		return img, "", err
	}
	w := &work{store: s, src: src, emit: emit}
	if err := w.rootfs(ctx, filepath.Join(tmp, rootfsFile), &img); err != nil {
		return img, "", err
	}
	err = s.images.publish(tmp, img)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) { // another call made the same image first
		img, err = s.Get(img.Digest)
		return img, name + " is here already", err
	}
	return img, w.report(name, img), err
}
