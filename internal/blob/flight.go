package blob

import (
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
)

// flight is the fetch of one blob. It lasts while at least one caller wants the blob. Its partial
// file stays afterwards.
type flight struct {
	store  *Store
	src    Source
	file   *os.File
	cancel context.CancelFunc
	done   chan struct{}

	users int // guarded by store.mu

	mu      sync.Mutex
	have    int64         // bytes of file that can be read
	fetched int64         // the part of have that this flight has fetched
	grown   chan struct{} // closed and replaced when have grows; closed when the flight ends
	ended   bool
	err     error
}

// start begins a flight. The caller holds s.mu.
func (s *Store) start(src Source) (*flight, error) {
	f, err := os.OpenFile(s.partial(src.Digest), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	fl := &flight{store: s, src: src, file: f, cancel: cancel, done: make(chan struct{}), grown: make(chan struct{})}
	s.flights[src.Digest] = fl
	go func() { // ends when the blob is complete, cannot be fetched, or is no longer wanted
		defer close(fl.done)
		defer cancel()
		err := fl.run(ctx)
		s.mu.Lock()
		delete(s.flights, src.Digest)
		s.mu.Unlock()
		fl.grow(0, 0, true, err)
	}()
	return fl, nil
}

// grow informs the readers that there are more bytes, or that no more will come.
func (f *flight) grow(have, fetched int64, ended bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.have += have
	f.fetched += fetched
	f.ended, f.err = ended, err
	close(f.grown)
	f.grown = make(chan struct{})
}

// leave ends one use of the flight. The last one ends the flight.
func (f *flight) leave() {
	f.store.mu.Lock()
	f.users--
	last := f.users == 0
	f.store.mu.Unlock()
	if last {
		f.cancel()
		<-f.done
		f.file.Close()
	}
}

// run fetches what is missing, verifies it and publishes the blob. It deletes wrong bytes; readers
// have already read them and must start again.
func (f *flight) run(ctx context.Context) error {
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

// hashPartial hashes the bytes that an earlier flight has left.
func (f *flight) hashPartial(ctx context.Context, h hash.Hash) error {
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() > f.src.Size {
		return f.file.Truncate(0)
	}
	n, err := io.Copy(h, contextio.NewReader(ctx, io.NewSectionReader(f.file, 0, info.Size())))
	f.grow(n, 0, false, nil)
	return err
}

// attempts requests the missing bytes until all are there.
func (f *flight) attempts(ctx context.Context, h hash.Hash) error {
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
func (f *flight) attempt(ctx context.Context, h hash.Hash) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := fmt.Errorf("no byte for %v", f.store.Stall)
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
			f.grow(int64(n), int64(n), false, nil)
		}
		if f.have == f.src.Size && err == nil {
			err = f.endOf(body)
		}
		if err == io.EOF && f.have == f.src.Size {
			return nil
		}
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
}

// endOf returns an error if r has more bytes.
func (f *flight) endOf(r io.Reader) error {
	var one [1]byte
	if n, err := io.ReadFull(r, one[:]); n == 0 {
		return err
	}
	return tooLong{f.src}
}

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
	flight *flight // nil if the blob was already in the store
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
		f := r.flight
		f.mu.Lock()
		have, ended, err, grown := f.have, f.ended, f.err, f.grown
		f.mu.Unlock()
		if r.at < have {
			n, err := r.file.ReadAt(p[:min(int64(len(p)), have-r.at)], r.at)
			r.at += int64(n)
			if n > 0 {
				return n, nil
			}
			if err == io.EOF { // another flight has truncated the file meanwhile
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		if ended && err == nil {
			return 0, io.EOF
		}
		if ended {
			return 0, err
		}
		select {
		case <-grown:
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
}

// wait returns when the blob is complete.
func (r *Reader) wait() error {
	if r.flight == nil {
		return nil
	}
	select {
	case <-r.flight.done:
		return r.flight.err
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

// Progress returns how many bytes are there, and how many of them were fetched by the flight that
// this reader follows.
func (r *Reader) Progress() (have, fetched int64) {
	if r.flight == nil {
		return r.size, 0
	}
	r.flight.mu.Lock()
	defer r.flight.mu.Unlock()
	return r.flight.have, r.flight.fetched
}

// Close ends the reading. If no other reader wants a blob that is being fetched, the fetch stops,
// and the fetched bytes are kept.
func (r *Reader) Close() error {
	r.once.Do(func() {
		if r.flight != nil {
			r.flight.leave()
			return
		}
		r.file.Close()
	})
	return nil
}
