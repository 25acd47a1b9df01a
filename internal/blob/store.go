package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Store keeps files by their sha256 below a directory: DIR/sha256/HEX whole and
// verified, DIR/partial/HEX while they are fetched. Its methods may be called
// concurrently, its fields be set before.
type Store struct {
	Backoff    time.Duration // before the second attempt; it doubles up to MaxBackoff
	MaxBackoff time.Duration
	Attempts   int           // in a row that bring no byte
	Stall      time.Duration // after which an attempt that brings no byte is given up

	dir string

	mu      sync.Mutex
	flights map[string]*flight
	doubted map[string]bool // whole, but to be hashed before they are used again
	keepers int             // how many Keep have begun and not ended
	touched map[string]bool // digests used since the first of them
}

// ErrDigest says that bytes are not what their digest promises.
var ErrDigest = errors.New("the bytes are not what the digest says")

// Source says what a blob is and where its bytes can be had.
type Source struct {
	Digest string // sha256:<64 hex digits>
	Size   int64  // bytes, exact
	// Open returns the bytes from offset on. An error with a method Permanent() bool
	// that says true is not tried again; one with RetryAfter() time.Duration says when.
	Open func(ctx context.Context, offset int64) (io.ReadCloser, error)
}

// Info is one blob of a store, or a part of one.
type Info struct {
	Digest string
	Size   int64 // bytes on the host
}

// OpenStore returns the store in dir, creating it.
func OpenStore(dir string) (*Store, error) {
	s := &Store{Backoff: 250 * time.Millisecond, MaxBackoff: 10 * time.Second, Attempts: 6, Stall: 30 * time.Second,
		dir: dir, flights: map[string]*flight{}, doubted: map[string]bool{}, touched: map[string]bool{}}
	for _, d := range []string{"sha256", "partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil { // layers may be of private images
		return nil, err
	}
	// What a Put left; partial blobs stay, to be gone on with.
	left, err := filepath.Glob(filepath.Join(dir, "partial", putPrefix+"*"))
	for _, l := range left {
		err = errors.Join(err, os.Remove(l))
	}
	return s, err
}

const putPrefix = "put-"

func checkDigest(digest string) (hex string, err error) {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%.100q is not a sha256 digest", digest)
	}
	return hex, nil
}

func sum(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

// Path returns where the blob lies when it is whole; the digest must be one.
func (s *Store) Path(digest string) string {
	return filepath.Join(s.dir, "sha256", strings.TrimPrefix(digest, "sha256:"))
}

func (s *Store) partial(digest string) string {
	return filepath.Join(s.dir, "partial", strings.TrimPrefix(digest, "sha256:"))
}

// Has returns the size in bytes of a blob that is here whole.
func (s *Store) Has(digest string) (size int64, ok bool) {
	if _, err := checkDigest(digest); err != nil {
		return 0, false
	}
	info, err := os.Stat(s.Path(digest))
	if err != nil {
		return 0, false
	}
	return info.Size(), true
}

// Open returns a reader of a blob from its first byte, which follows the fetch while
// it goes on. However many want the same blob, it is fetched once.
func (s *Store) Open(ctx context.Context, src Source) (*Reader, error) {
	if _, err := checkDigest(src.Digest); err != nil {
		return nil, err
	}
	if err := s.verifyDoubted(ctx, src.Digest); err != nil {
		return nil, err
	}
	for {
		r, dying, err := s.reader(ctx, src)
		if dying == nil {
			return r, err
		}
		select {
		case <-dying: // its partial file is free then
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// reader returns a reader, or the end of a flight that it cannot join: nobody wants it
// any more, or it believes in another size.
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
	fl := s.flights[src.Digest]
	if fl != nil && (fl.users == 0 || fl.src.Size != src.Size) {
		return nil, fl.done, nil
	}
	if fl == nil {
		if fl, err = s.start(src); err != nil {
			return nil, nil, err
		}
	}
	fl.users++
	return &Reader{ctx: ctx, flight: fl, file: fl.file, size: src.Size}, nil, nil
}

// Fetch brings a blob in without reading it.
func (s *Store) Fetch(ctx context.Context, src Source) error {
	r, err := s.Open(ctx, src)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.wait()
}

// Put stores what r holds and returns its digest and size.
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
	if size, err = io.Copy(io.MultiWriter(f, h), contextReader{ctx, r}); err != nil {
		return "", 0, err
	}
	digest = sum(h)
	if err := f.Chmod(0o600); err != nil {
		return "", 0, err
	}
	return digest, size, s.publish(f, f.Name(), digest)
}

// PutBytes is Put of bytes.
func (s *Store) PutBytes(data []byte) (digest string, err error) {
	d := sha256.Sum256(data)
	digest = "sha256:" + hex.EncodeToString(d[:])
	s.mu.Lock()
	s.touch(digest)
	s.mu.Unlock()
	if size, ok := s.Has(digest); ok && size == int64(len(data)) && !s.isDoubted(digest) {
		return digest, nil
	}
	digest, _, err = s.Put(context.Background(), bytes.NewReader(data))
	return digest, err
}

// publish makes a file that was written and hashed a blob of the store, durably.
func (s *Store) publish(f *os.File, name, digest string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	s.mu.Lock()
	s.touch(digest)
	err := os.Rename(name, s.Path(digest))
	delete(s.doubted, digest)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return Sync(filepath.Join(s.dir, "sha256"))
}

// ReadAll returns a blob of at most limit bytes, hashed again.
func (s *Store) ReadAll(ctx context.Context, digest string, limit int64) ([]byte, error) {
	if _, err := checkDigest(digest); err != nil {
		return nil, err
	}
	f, err := os.Open(s.Path(digest))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	data, err := io.ReadAll(io.TeeReader(io.LimitReader(contextReader{ctx, f}, limit+1), h))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > limit:
		return nil, fmt.Errorf("blob %s has more than %d bytes", digest, limit)
	case sum(h) != digest:
		return nil, fmt.Errorf("blob %s: %w", digest, ErrDigest)
	}
	return data, nil
}

// List returns all whole blobs.
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
		size := info.Size()
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			size = st.Blocks * 512
		}
		all = append(all, Info{"sha256:" + e.Name(), size})
	}
	return all, nil
}

// Keep begins the making of something that needs blobs. Until it ends, Collect removes none that was
// put or opened since.
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

// touch notes that a blob is used; s.mu is held.
func (s *Store) touch(digest string) {
	if s.keepers > 0 {
		s.touched[digest] = true
	}
}

// Collect removes the blobs, whole or partial, that keep refuses, that are not
// being fetched, and that no Keep holds. With dryRun it only returns what they are. A reader that has a blob open
// can go on. What Keep held until Collect began is whole when keep is first called, which must not use the store.
func (s *Store) Collect(keep func(digest string) bool, dryRun bool) (removed []Info, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, dir := range []string{"sha256", "partial"} {
		all, err := list(filepath.Join(s.dir, dir))
		if err != nil {
			return removed, err
		}
		for _, b := range all {
			if s.flights[b.Digest] != nil || s.touched[b.Digest] || keep(b.Digest) && dir == "sha256" {
				continue
			}
			if !dryRun {
				if err := os.Remove(filepath.Join(s.dir, dir, strings.TrimPrefix(b.Digest, "sha256:"))); err != nil {
					return removed, err
				}
			}
			removed = append(removed, b)
		}
	}
	return removed, nil
}

// Doubt says that what is here may not be what was written, as after a power cut:
// every blob is hashed before its next use, and one that is wrong is removed.
func (s *Store) Doubt() error {
	all, err := s.List()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range all {
		s.doubted[b.Digest] = true
	}
	return err
}

// Verify hashes a blob that is here and removes it when it is wrong. It returns
// ErrDigest then.
func (s *Store) Verify(ctx context.Context, digest string) error {
	f, err := os.Open(s.Path(digest))
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, contextReader{ctx, f}); err != nil {
		return err
	}
	if sum(h) != digest {
		return errors.Join(fmt.Errorf("blob %s: %w", digest, ErrDigest), s.removeIf(f, digest))
	}
	return nil
}

// removeIf removes a blob if it still is the file f.
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

func (s *Store) isDoubted(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doubted[digest]
}

func (s *Store) verifyDoubted(ctx context.Context, digest string) error {
	if !s.isDoubted(digest) {
		return nil
	}
	err := s.Verify(ctx, digest)
	if err != nil && !errors.Is(err, ErrDigest) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	delete(s.doubted, digest)
	s.mu.Unlock()
	return nil
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
