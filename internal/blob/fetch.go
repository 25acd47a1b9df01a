package blob

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"banger/internal/contextio"
	"banger/internal/flight"
)

// fetch is the state of the fetch of one blob. It lasts while at least one caller needs the blob. Its partial file
// stays afterwards.
type fetch struct {
	store *Store
	src   Source
	file  *os.File

	mu      sync.Mutex
	have    int64         // bytes of file that can be read
	fetched int64         // the part of have that this fetch has received
	grown   chan struct{} // closed and replaced when have grows
}

// begin opens the partial file of a blob.
func (s *Store) begin(src Source) (*fetch, error) {
	file, err := os.OpenFile(s.partial(src.Digest), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &fetch{store: s, src: src, file: file, grown: make(chan struct{})}, nil
}

// grow adds bytes that can be read, and wakes the readers.
func (f *fetch) grow(have, fetched int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.have += have
	f.fetched += fetched
	close(f.grown)
	f.grown = make(chan struct{})
}

// progress returns how many bytes can be read, how many of them this fetch has received, and a channel that is closed
// when there are more.
func (f *fetch) progress() (have, fetched int64, grown <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.have, f.fetched, f.grown
}

// run fetches what is missing, verifies it and publishes the blob. It deletes wrong bytes; readers
// have already read them and must start again.
func (f *fetch) run(ctx context.Context) error {
	h := sha256.New()
	if err := f.hashPartial(ctx, h); err != nil {
		return err
	}
	partial := f.store.partial(f.src.Digest)
	err := f.attempts(ctx, h)
	if err == nil && DigestOf(h) != f.src.Digest {
		err = fmt.Errorf("blob %s: %w", f.src.Digest, ErrDigest)
	}
	if errors.Is(err, ErrDigest) {
		return errors.Join(err, os.Remove(partial))
	}
	if err != nil {
		return err
	}
	return f.store.publish(f.file, partial, f.src.Digest)
}

// hashPartial hashes the bytes that an earlier fetch has left.
func (f *fetch) hashPartial(ctx context.Context, h hash.Hash) error {
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() > f.src.Size {
		return f.file.Truncate(0)
	}
	n, err := io.Copy(h, contextio.NewReader(ctx, io.NewSectionReader(f.file, 0, info.Size())))
	f.grow(n, 0)
	return err
}

// attempts requests the missing bytes until all are there.
func (f *fetch) attempts(ctx context.Context, h hash.Hash) error {
	wait := f.store.Backoff
	for failed := 0; f.have < f.src.Size; {
		before := f.have
		err := f.attempt(ctx, h)
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		case isPermanent(err):
			return err
		case f.have > before:
			failed, wait = 0, f.store.Backoff
		}
		if failed++; failed >= f.store.Attempts {
			return fmt.Errorf("gave up after %d attempts: %w", failed, err)
		}
		pause := wait
		if after, ok := errors.AsType[interface {
			error
			RetryAfter() time.Duration
		}](err); ok && after.RetryAfter() > 0 {
			pause = min(after.RetryAfter(), maxRetryAfter)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		wait = min(2*wait, f.store.MaxBackoff)
	}
	return nil
}

const maxRetryAfter = 2 * time.Minute

// Permanent marks err as an error that another attempt to open a Source would have as well.
func Permanent(err error) error { return permanent{err} }

type permanent struct{ error }

func (permanent) Permanent() bool { return true }
func (p permanent) Unwrap() error { return p.error }

// isPermanent reports whether another attempt would have the same error.
func isPermanent(err error) bool {
	p, ok := errors.AsType[interface {
		error
		Permanent() bool
	}](err)
	return ok && p.Permanent() || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// writeBack is the number of fetched bytes after which they are sent to the disk.
const writeBack = 4 << 20

// attempt makes one request for all missing bytes and stores what comes.
func (f *fetch) attempt(ctx context.Context, h hash.Hash) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := fmt.Errorf("%w: none for %v", ErrShort, f.store.Stall)
	alarm := time.AfterFunc(f.store.Stall, func() { cancel(stalled) })
	defer alarm.Stop()
	defer func() {
		if err != nil && context.Cause(ctx) == stalled {
			err = stalled
		}
	}()
	body, err := f.src.Open(ctx, f.have)
	if err != nil {
		return err
	}
	defer body.Close()
	defer context.AfterFunc(ctx, func() { body.Close() })()
	buf := make([]byte, 256<<10)
	for {
		n, err := body.Read(buf)
		alarm.Reset(f.store.Stall)
		if f.have+int64(n) > f.src.Size {
			return tooLong{f.src}
		}
		if n > 0 {
			if _, err := f.file.WriteAt(buf[:n], f.have); err != nil {
				return err
			}
			if at := f.have + int64(n); at/writeBack > f.have/writeBack {
				WriteBack(f.file, at-at%writeBack-writeBack, writeBack)
			}
			h.Write(buf[:n])
			f.grow(int64(n), int64(n))
		}
		if f.have == f.src.Size && err == nil {
			err = f.endOf(body)
		}
		if err == io.EOF && f.have == f.src.Size {
			return nil
		}
		if err == io.EOF {
			return ErrShort
		}
		if err != nil {
			return err
		}
	}
}

// endOf returns an error if r has more bytes.
func (f *fetch) endOf(r io.Reader) error {
	var one [1]byte
	if n, err := io.ReadFull(r, one[:]); n == 0 {
		return err
	}
	return tooLong{f.src}
}

// ErrShort is the error for a source from which fewer bytes come than announced.
var ErrShort = errors.New("too few bytes come")

// tooLong is the error for a source with more bytes than announced.
type tooLong struct{ src Source }

func (t tooLong) Error() string {
	return fmt.Sprintf("blob %s: there are more than its %d bytes", t.src.Digest, t.src.Size)
}
func (t tooLong) Unwrap() error   { return ErrDigest }
func (t tooLong) Permanent() bool { return true }

// Reader reads a blob, which may still be being fetched.
type Reader struct {
	ctx    context.Context
	flight *flight.Flight[*fetch] // nil if the blob was already in the store
	file   *os.File
	size   int64
	at     int64
	once   sync.Once
}

// Read returns io.EOF only when the whole blob is in the store, matches its digest and is durable.
func (r *Reader) Read(p []byte) (int, error) {
	if r.flight == nil {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		return r.file.Read(p)
	}
	for {
		ended := r.ended() // before progress, which is final when the fetch has ended
		have, _, grown := r.flight.Value.progress()
		if r.at < have {
			n, err := r.file.ReadAt(p[:min(int64(len(p)), have-r.at)], r.at)
			r.at += int64(n)
			if n > 0 {
				return n, nil
			}
			if err == io.EOF { // another fetch has truncated the file meanwhile
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		if ended {
			return 0, cmp.Or(r.flight.Err(), io.EOF)
		}
		select {
		case <-grown:
		case <-r.flight.Done():
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
}

// ended reports whether the fetch has ended.
func (r *Reader) ended() bool {
	select {
	case <-r.flight.Done():
		return true
	default:
		return false
	}
}

// wait returns when the blob is complete.
func (r *Reader) wait() error {
	if r.flight == nil {
		return nil
	}
	select {
	case <-r.flight.Done():
		return r.flight.Err()
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

// Progress returns how many bytes are there, and how many of them were received by the fetch that
// this reader follows.
func (r *Reader) Progress() (have, fetched int64) {
	if r.flight == nil {
		return r.size, 0
	}
	have, fetched, _ = r.flight.Value.progress()
	return have, fetched
}

// Close ends the reading. If no other reader needs a blob that is being fetched, the fetch stops,
// and the fetched bytes are kept.
func (r *Reader) Close() error {
	r.once.Do(func() {
		if r.flight == nil {
			r.file.Close()
			return
		}
		if r.flight.Leave() {
			<-r.flight.Done()
			r.file.Close()
		}
	})
	return nil
}
