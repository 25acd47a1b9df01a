package blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// damage changes a blob on the disk and keeps its size.
func damage(t *testing.T, s *Store, digest string) {
	t.Helper()
	data, err := os.ReadFile(s.Path(digest))
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(s.Path(digest), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, s *Store, data []byte) (digest string) {
	t.Helper()
	digest, err := s.PutBytes(data)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func TestList(t *testing.T) {
	s, want := openStore(t, t.TempDir()), []string{}
	for n := range 3 {
		want = append(want, put(t, s, random(1000*n)))
	}
	if err := os.WriteFile(s.partial(Digest(random(7))), random(3), 0o644); err != nil {
		t.Fatal(err)
	}
	all, err := s.List()
	var got []string
	for _, b := range all {
		got = append(got, b.Digest)
	}
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("it lists %q, not %q (%v)", got, want, err)
	}
}

// TestPutsThatAreUnderWay checks that a Put that was killed leaves nothing for ever, and that a
// Collect does not disturb a running one.
func TestPutsThatAreUnderWay(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	r, w := io.Pipe()
	digest, done := make(chan string, 1), make(chan error, 1)
	go func() {
		d, _, err := s.Put(context.Background(), r)
		digest <- d
		done <- err
	}()
	if _, err := w.Write([]byte("half ")); err != nil { // Put has read it when this returns
		t.Fatal(err)
	}
	if removed, err := s.Collect(func(string) bool { return false }, false); err != nil || len(removed) > 0 {
		t.Errorf("Collect removes %v, %v", removed, err)
	}
	if _, err := w.Write([]byte("whole")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if d, err := <-digest, <-done; err != nil || d != Digest([]byte("half whole")) {
		t.Errorf("Put gives %s, %v", d, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "partial", putPrefix+"123"), []byte("killed"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantBlob(t, openStore(t, dir), []byte("half whole"))
}

func TestCollectRemovesParts(t *testing.T) {
	s, o := openStore(t, t.TempDir()), &origin{data: random(1000)}
	o.answer = func(_ int, _ context.Context, at int64) (io.ReadCloser, error) { return o.cut(at, 600, final{}), nil }
	if _, err := readAll(t, s, o.source()); !errors.Is(err, final{}) {
		t.Fatal(err)
	}
	removed, err := s.Collect(func(string) bool { return true }, false)
	if err != nil || len(removed) != 1 || removed[0].Digest != Digest(o.data) {
		t.Errorf("it removes %v, %v", removed, err)
	}
	o.answer = nil
	if _, err := readAll(t, s, o.source()); err != nil {
		t.Error(err)
	}
	if at := o.asked(); at[len(at)-1] != 0 {
		t.Errorf("asked from %d", at)
	}
	wantBlob(t, s, o.data)
}

// TestADamagedBlob checks that Verify and ReadAll hash complete blobs, and that Open does not.
func TestADamagedBlob(t *testing.T) {
	s, data := openStore(t, t.TempDir()), random(1000)
	digest := put(t, s, data)
	if err := s.Verify(context.Background(), digest); err != nil {
		t.Errorf("a good one: %v", err)
	}
	damage(t, s, digest)
	if _, err := s.ReadAll(context.Background(), digest, 1000); !errors.Is(err, ErrDigest) {
		t.Errorf("ReadAll: %v", err)
	}
	if err := s.Verify(context.Background(), digest); !errors.Is(err, ErrDigest) {
		t.Errorf("Verify: %v", err)
	}
	if _, here := s.Has(digest); here {
		t.Error("Verify leaves it")
	}
}

// TestEveryUseOfAnUnverifiedBlob checks that every blob is hashed before its next use after MarkUnverified. A
// Put of the right bytes replaces a damaged blob.
func TestEveryUseOfAnUnverifiedBlob(t *testing.T) {
	for name, use := range map[string]func(s *Store, data []byte) error{
		"Open": func(s *Store, data []byte) error {
			o := &origin{data: data}
			return s.Fetch(context.Background(), o.source())
		},
		"Put": func(s *Store, data []byte) error {
			_, _, err := s.Put(context.Background(), bytes.NewReader(data))
			return err
		},
		"PutBytes": func(s *Store, data []byte) error {
			_, err := s.PutBytes(data)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, data := openStore(t, t.TempDir()), random(1000)
			digest := put(t, s, data)
			damage(t, s, digest)
			if err := s.MarkUnverified(); err != nil {
				t.Fatal(err)
			}
			if err := use(s, data); err != nil {
				t.Fatal(err)
			}
			wantBlob(t, s, data)
		})
	}
}

// held is a context whose Err waits for a gate. It stops a Verify while it reads the file.
type held struct {
	context.Context
	once  sync.Once
	there chan struct{}
	gate  chan struct{}
}

func (h *held) Err() error {
	h.once.Do(func() {
		close(h.there)
		<-h.gate
	})
	return h.Context.Err()
}

// TestASlowVerifyDoesNotRemoveWhatIsGood checks two calls that verify the same damaged blob. When
// the slower one ends, the faster one has removed the blob and fetched it again; the good blob must
// stay.
func TestASlowVerifyDoesNotRemoveWhatIsGood(t *testing.T) {
	s, o := openStore(t, t.TempDir()), &origin{data: random(1000)}
	digest := put(t, s, o.data)
	damage(t, s, digest)
	slow := &held{Context: context.Background(), there: make(chan struct{}), gate: make(chan struct{})}
	result := make(chan error, 1)
	go func() { result <- s.Verify(slow, digest) }()
	<-slow.there
	if err := s.MarkUnverified(); err != nil {
		t.Fatal(err)
	}
	if err := s.Fetch(context.Background(), o.source()); err != nil {
		t.Fatal(err)
	}
	close(slow.gate)
	<-result // it may be right or wrong about what it has read
	wantBlob(t, s, o.data)
}

// TestAHundredReadersOfAnUnverifiedBlob checks that a hundred readers after MarkUnverified cause one fetch.
func TestAHundredReadersOfAnUnverifiedBlob(t *testing.T) {
	s, o := openStore(t, t.TempDir()), &origin{data: random(100_000)}
	damage(t, s, put(t, s, o.data))
	if err := s.MarkUnverified(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if got, err := readAll(t, s, o.source()); err != nil || !bytes.Equal(got, o.data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if n := o.calls.Load(); n != 1 {
		t.Errorf("the source was asked %d times", n)
	}
	wantBlob(t, s, o.data)
}
