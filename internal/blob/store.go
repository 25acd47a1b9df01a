package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"banger/internal/contextio"
	"banger/internal/flight"
	"banger/internal/sparse"
)

// Store keeps files by their sha256 below a directory: complete and verified as DIR/sha256/HEX, and
// while they are fetched as DIR/partial/HEX. Its methods may be called concurrently. Its fields
// must be set before.
type Store struct {
	Backoff    time.Duration // before the second attempt; doubles up to MaxBackoff
	MaxBackoff time.Duration
	Attempts   int           // in a row that get no bytes
	Stall      time.Duration // time after which an attempt that gets no bytes is given up

	dir string

	mu         sync.Mutex
	fetches    flight.Group[*fetch] // joined while mu is held
	unverified map[string]bool      // complete, but to be hashed before their next use
	keepers    int                  // calls of Keep that have not ended
	touched    map[string]bool      // digests used since the first of these calls
}

// ErrDigest means that bytes do not match their digest.
var ErrDigest = errors.New("the bytes are not what the digest says")

// Source describes a blob and where its bytes can be fetched.
type Source struct {
	Digest string // sha256:<64 hex digits>
	Size   int64  // bytes, exact
	// Open returns the bytes from offset on. If the error has a method Permanent() bool that returns
	// true, as those of the function Permanent do, there is no further attempt. If it has a method
	// RetryAfter() time.Duration, that is the pause before the next attempt.
	Open func(ctx context.Context, offset int64) (io.ReadCloser, error)
}

// Info describes a complete or partial blob of a store.
type Info struct {
	Digest string
	Size   int64 // bytes on the host
}

// OpenStore returns the store in dir. It creates the directory if necessary.
func OpenStore(dir string) (*Store, error) {
	s := &Store{
		Backoff:    250 * time.Millisecond,
		MaxBackoff: 10 * time.Second,
		Attempts:   6,
		Stall:      30 * time.Second,
		dir:        dir,
		unverified: map[string]bool{},
		touched:    map[string]bool{},
	}
	for _, d := range []string{"sha256", "partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil { // layers may belong to private images
		return nil, err
	}
	// These are left from Put. Partial blobs stay, to be continued.
	left, err := filepath.Glob(filepath.Join(dir, "partial", putPrefix+"*"))
	for _, l := range left {
		err = errors.Join(err, os.Remove(l))
	}
	return s, err
}

const putPrefix = "put-"

// Path returns the path of a complete blob. The digest must be valid.
func (s *Store) Path(digest string) string {
	return filepath.Join(s.dir, "sha256", Digits(digest))
}

func (s *Store) partial(digest string) string {
	return filepath.Join(s.dir, "partial", Digits(digest))
}

// Has returns the size in bytes of a blob. It reports false if the blob is not complete.
func (s *Store) Has(digest string) (size int64, ok bool) {
	if err := CheckDigest(digest); err != nil {
		return 0, false
	}
	info, err := os.Stat(s.Path(digest))
	if err != nil {
		return 0, false
	}
	return info.Size(), true
}

// Open returns a reader of a blob from its first byte. The reader follows the fetch while it goes
// on. A blob is fetched only once, however many readers there are.
func (s *Store) Open(ctx context.Context, src Source) (*Reader, error) {
	if err := CheckDigest(src.Digest); err != nil {
		return nil, err
	}
	if err := s.verifyOnce(ctx, src.Digest); err != nil {
		return nil, err
	}
	for {
		r, ending, err := s.reader(ctx, src)
		if ending == nil {
			return r, err
		}
		select {
		case <-ending: // its partial file is free afterwards
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// reader returns a reader. If a fetch of the blob is under way that cannot be joined, because it is
// ending or expects another size, reader returns a channel that is closed at its end.
func (s *Store) reader(ctx context.Context, src Source) (*Reader, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touch(src.Digest)
	f, err := os.Open(s.Path(src.Digest))
	if err == nil {
		info, err := f.Stat()
		if err == nil && info.Size() != src.Size {
			err = fmt.Errorf("blob %s has %d bytes, not %d", src.Digest, info.Size(), src.Size)
		}
		if err != nil {
			f.Close()
			return nil, nil, err
		}
		return &Reader{ctx: ctx, file: f, size: src.Size}, nil, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if other := s.fetches.Get(src.Digest); other != nil && other.Value.src.Size != src.Size {
		return nil, other.Done(), nil
	}
	begin := func() (*fetch, error) { return s.begin(src) }
	fl, joined, err := s.fetches.Join(src.Digest, begin, func(ctx context.Context, f *fetch) error { return f.run(ctx) })
	switch {
	case err != nil:
		return nil, nil, err
	case !joined:
		return nil, fl.Done(), nil
	}
	return &Reader{ctx: ctx, flight: fl, file: fl.Value.file, size: src.Size}, nil, nil
}

// Fetch adds a blob to the store without reading it.
func (s *Store) Fetch(ctx context.Context, src Source) error {
	r, err := s.Open(ctx, src)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.wait()
}

// Put stores the bytes of r as a blob and returns its digest and size.
func (s *Store) Put(ctx context.Context, r io.Reader) (digest string, size int64, err error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, "partial"), putPrefix+"*")
	if err != nil {
		return "", 0, err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	h := sha256.New()
	if size, err = io.Copy(io.MultiWriter(f, h), contextio.NewReader(ctx, r)); err != nil {
		return "", 0, err
	}
	digest = DigestOf(h)
	if err := f.Chmod(0o600); err != nil {
		return "", 0, err
	}
	return digest, size, s.publish(f, f.Name(), digest)
}

// PutBytes stores data as a blob and returns its digest.
func (s *Store) PutBytes(data []byte) (digest string, err error) {
	digest = Digest(data)
	s.mu.Lock()
	s.touch(digest)
	s.mu.Unlock()
	if size, ok := s.Has(digest); ok && size == int64(len(data)) && !s.isUnverified(digest) {
		return digest, nil
	}
	digest, _, err = s.Put(context.Background(), bytes.NewReader(data))
	return digest, err
}

// publish makes a written and hashed file a blob of the store, durably.
func (s *Store) publish(f *os.File, name, digest string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	s.mu.Lock()
	s.touch(digest)
	err := os.Rename(name, s.Path(digest))
	delete(s.unverified, digest)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return Sync(filepath.Join(s.dir, "sha256"))
}

// ReadAll returns a blob of at most limit bytes, after it has verified the digest.
func (s *Store) ReadAll(ctx context.Context, digest string, limit int64) ([]byte, error) {
	if err := CheckDigest(digest); err != nil {
		return nil, err
	}
	f, err := os.Open(s.Path(digest))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	data, err := io.ReadAll(io.TeeReader(io.LimitReader(contextio.NewReader(ctx, f), limit+1), h))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > limit:
		return nil, fmt.Errorf("blob %s has more than %d bytes", digest, limit)
	case DigestOf(h) != digest:
		return nil, fmt.Errorf("blob %s: %w", digest, ErrDigest)
	}
	return data, nil
}

// List returns all complete blobs.
func (s *Store) List() ([]Info, error) { return list(filepath.Join(s.dir, "sha256")) }

func list(dir string) ([]Info, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []Info
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(e.Name(), putPrefix) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, Info{algorithm + e.Name(), sparse.Allocated(info)})
	}
	return all, nil
}

// Keep protects blobs for a task that needs them. Until the task calls end, Collect does not remove
// blobs that were put or opened since Keep.
func (s *Store) Keep() (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepers++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.keepers--; s.keepers == 0 {
			clear(s.touched)
		}
	})
}

// touch records the use of a blob. The caller holds s.mu.
func (s *Store) touch(digest string) {
	if s.keepers > 0 {
		s.touched[digest] = true
	}
}

// Collect removes complete and partial blobs for which keep returns false, unless they are being
// fetched or protected by Keep. With dryRun it only returns them. A reader that has a blob open can
// continue. A blob that Keep protected until Collect began is complete when keep is first called.
// keep must not use the store.
func (s *Store) Collect(keep func(digest string) bool, dryRun bool) (removed []Info, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, dir := range []string{"sha256", "partial"} {
		all, err := list(filepath.Join(s.dir, dir))
		if err != nil {
			return removed, err
		}
		for _, b := range all {
			if s.fetches.Get(b.Digest) != nil || s.touched[b.Digest] || keep(b.Digest) && dir == "sha256" {
				continue
			}
			if !dryRun {
				if err := os.Remove(filepath.Join(s.dir, dir, Digits(b.Digest))); err != nil {
					return removed, err
				}
			}
			removed = append(removed, b)
		}
	}
	return removed, nil
}

// MarkUnverified says that the stored blobs may be damaged, as after a power cut. Every blob is then
// hashed before its next use, and damaged ones are removed.
func (s *Store) MarkUnverified() error {
	all, err := s.List()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range all {
		s.unverified[b.Digest] = true
	}
	return err
}

// Verify hashes a stored blob. If it does not match its digest, Verify removes it and returns
// ErrDigest.
func (s *Store) Verify(ctx context.Context, digest string) error {
	f, err := os.Open(s.Path(digest))
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, contextio.NewReader(ctx, f)); err != nil {
		return err
	}
	if DigestOf(h) != digest {
		return errors.Join(fmt.Errorf("blob %s: %w", digest, ErrDigest), s.removeIf(f, digest))
	}
	return nil
}

// removeIf removes a blob if it is still the file f.
func (s *Store) removeIf(f *os.File, digest string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, err := f.Stat()
	if err != nil {
		return err
	}
	is, err := os.Stat(s.Path(digest))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(was, is) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(s.Path(digest))
}

func (s *Store) isUnverified(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unverified[digest]
}

// verifyOnce verifies a blob if it is marked as unverified. A damaged blob is not an error: it is removed.
func (s *Store) verifyOnce(ctx context.Context, digest string) error {
	if !s.isUnverified(digest) {
		return nil
	}
	err := s.Verify(ctx, digest)
	if err != nil && !errors.Is(err, ErrDigest) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	delete(s.unverified, digest)
	s.mu.Unlock()
	return nil
}
