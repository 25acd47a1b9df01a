package blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.Backoff, s.MaxBackoff = time.Millisecond, 2*time.Millisecond
	return s
}

func random(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// origin is a source of blobs. Each call of Open gets the next answer; calls are counted from 1.
type origin struct {
	data    []byte
	answer  func(call int, ctx context.Context, offset int64) (io.ReadCloser, error) // nil: all that is asked
	calls   atomic.Int64
	mu      sync.Mutex
	offsets []int64
}

func (o *origin) source() Source {
	return Source{Digest: Digest(o.data), Size: int64(len(o.data)),
		Open: func(ctx context.Context, offset int64) (io.ReadCloser, error) {
			n := o.calls.Add(1)
			o.mu.Lock()
			o.offsets = append(o.offsets, offset)
			o.mu.Unlock()
			if o.answer != nil {
				return o.answer(int(n), ctx, offset)
			}
			return o.from(offset), nil
		}}
}

func (o *origin) from(offset int64) io.ReadCloser {
	return io.NopCloser(bytes.NewReader(o.data[offset:]))
}

func (o *origin) asked() []int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]int64(nil), o.offsets...)
}

func readAll(t *testing.T, s *Store, src Source) ([]byte, error) {
	t.Helper()
	r, err := s.Open(context.Background(), src)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// wantBlob checks that the store has the blob and no partial files.
func wantBlob(t *testing.T, s *Store, data []byte) {
	t.Helper()
	got, err := os.ReadFile(s.Path(Digest(data)))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("the store has %d bytes of %d (%v)", len(got), len(data), err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "partial", "*")); left != nil {
		t.Errorf("%q are left", left)
	}
}

// gated is a body that returns one half, and the other when the gate opens.
type gated struct {
	ctx  context.Context
	data []byte
	half int
	gate chan struct{}
}

func (g *gated) Read(p []byte) (int, error) {
	if g.half == 0 {
		select {
		case <-g.gate:
		case <-g.ctx.Done():
			return 0, g.ctx.Err()
		}
		g.half = len(g.data)
	}
	if len(g.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, g.data[:g.half])
	g.data, g.half = g.data[n:], g.half-n
	return n, nil
}

func (g *gated) Close() error { return nil }

func (o *origin) behind(gate chan struct{}) {
	o.answer = func(_ int, ctx context.Context, offset int64) (io.ReadCloser, error) {
		return &gated{ctx: ctx, data: o.data[offset:], half: len(o.data[offset:]) / 2, gate: gate}, nil
	}
}

func TestAHundredCallersShareOneFetch(t *testing.T) {
	s, o, gate := openStore(t, t.TempDir()), &origin{data: random(1 << 20)}, make(chan struct{})
	o.behind(gate)
	var wg sync.WaitGroup
	for range 100 {
		r, err := s.Open(context.Background(), o.source())
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, o.data) {
				t.Errorf("a caller got %d bytes, %v", len(got), err)
			}
		})
	}
	close(gate)
	wg.Wait()
	if n := o.calls.Load(); n != 1 {
		t.Errorf("the source was asked %d times", n)
	}
	wantBlob(t, s, o.data)
}

func TestTheFirstCallerMayGo(t *testing.T) {
	s, o, gate := openStore(t, t.TempDir()), &origin{data: random(1 << 20)}, make(chan struct{})
	o.behind(gate)
	ctx, cancel := context.WithCancel(context.Background())
	first, err := s.Open(ctx, o.source())
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Open(context.Background(), o.source())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	cancel()
	if _, err := io.ReadAll(first); !errors.Is(err, context.Canceled) {
		t.Errorf("the first reads on: %v", err)
	}
	first.Close()
	close(gate)
	if got, err := io.ReadAll(second); err != nil || !bytes.Equal(got, o.data) || o.calls.Load() != 1 {
		t.Errorf("the second got %d bytes of %d calls, %v", len(got), o.calls.Load(), err)
	}
}

// TestAFetchGoesOnInTheNextLife checks that the fetch stops when the last reader leaves, and that a
// store that is opened later continues it.
func TestAFetchGoesOnInTheNextLife(t *testing.T) {
	dir, o := t.TempDir(), &origin{data: random(1 << 20)}
	half := len(o.data) / 2
	o.behind(make(chan struct{}))
	r, err := openStore(t, dir).Open(context.Background(), o.source())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, half)); err != nil {
		t.Fatal(err)
	}
	r.Close() // goleak sees that the flight has ended
	o.answer = nil
	s := openStore(t, dir)
	if r, err = s.Open(context.Background(), o.source()); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, o.data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if _, fetched := r.Progress(); fetched != int64(len(o.data)-half) {
		t.Errorf("%d bytes travelled for the second half", fetched)
	}
	if at := o.asked(); len(at) != 2 || at[1] != int64(half) {
		t.Errorf("asked from %d", at)
	}
	wantBlob(t, s, o.data)
}

// cut is a body that ends with a given error after n bytes.
func (o *origin) cut(offset int64, n int, err error) io.ReadCloser {
	return io.NopCloser(io.MultiReader(bytes.NewReader(o.data[offset:][:n]), errReader{err}))
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// final is an error that another attempt would also have.
type final struct{}

func (final) Error() string   { return "gone for good" }
func (final) Permanent() bool { return true }

// later is an error that says when to ask again.
type later struct{}

func (later) Error() string             { return "busy" }
func (later) RetryAfter() time.Duration { return time.Millisecond }

var errBroken = errors.New("connection reset")

// failingSources are the faults of sources, and the results.
var failingSources = map[string]struct {
	answer func(o *origin) func(int, context.Context, int64) (io.ReadCloser, error)
	calls  int64 // of Open
	ok     bool
	wrong  bool // errors.Is ErrDigest
	kept   bool // a part of it is kept
}{
	"one broken connection": {func(o *origin) func(int, context.Context, int64) (io.ReadCloser, error) {
		return func(call int, _ context.Context, at int64) (io.ReadCloser, error) {
			if call == 1 {
				return o.cut(at, 1000, errBroken), nil
			}
			return o.from(at), nil
		}
	}, 2, true, false, false},
	"bytes that end too soon, again and again": {func(o *origin) func(int, context.Context, int64) (io.ReadCloser, error) {
		return func(_ int, _ context.Context, at int64) (io.ReadCloser, error) {
			return o.cut(at, min(len(o.data)-int(at), 7000), io.EOF), nil
		}
	}, 15, true, false, false}, // each brings it on, so none counts as the last try
	"nothing, ever": {func(o *origin) func(int, context.Context, int64) (io.ReadCloser, error) {
		return func(int, context.Context, int64) (io.ReadCloser, error) { return nil, errBroken }
	}, 6, false, false, true},
	"busy at first": {func(o *origin) func(int, context.Context, int64) (io.ReadCloser, error) {
		return func(call int, _ context.Context, at int64) (io.ReadCloser, error) {
			if call < 4 {
				return nil, later{}
			}
			return o.from(at), nil
		}
	}, 4, true, false, false},
	"a refusal": {func(o *origin) func(int, context.Context, int64) (io.ReadCloser, error) {
		return func(int, context.Context, int64) (io.ReadCloser, error) { return nil, final{} }
	}, 1, false, false, true},
	"wrong bytes": {func(o *origin) func(int, context.Context, int64) (io.ReadCloser, error) {
		return func(_ int, _ context.Context, at int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(random(len(o.data) + 1)[1:])), nil
		}
	}, 1, false, true, false},
	"too many bytes": {func(o *origin) func(int, context.Context, int64) (io.ReadCloser, error) {
		return func(_ int, _ context.Context, at int64) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(o.from(at), strings.NewReader("x"))), nil
		}
	}, 1, false, true, false},
	"a stall": {func(o *origin) func(int, context.Context, int64) (io.ReadCloser, error) {
		return func(call int, ctx context.Context, at int64) (io.ReadCloser, error) {
			if call == 1 {
				return &gated{ctx: ctx, data: o.data, half: 5000}, nil // its gate never opens
			}
			return o.from(at), nil
		}
	}, 2, true, false, false},
}

func TestSourcesThatFail(t *testing.T) {
	for name, c := range failingSources {
		t.Run(name, func(t *testing.T) {
			s, o := openStore(t, t.TempDir()), &origin{data: random(100_000)}
			s.Stall = 200 * time.Millisecond
			o.answer = c.answer(o)
			got, err := readAll(t, s, o.source())
			if (err == nil) != c.ok || errors.Is(err, ErrDigest) != c.wrong {
				t.Fatalf("the error is %v", err)
			}
			if n := o.calls.Load(); n != c.calls {
				t.Errorf("the source was asked %d times, not %d (from %d)", n, c.calls, o.asked())
			}
			if c.ok {
				wantBlob(t, s, got)
				return
			}
			if _, here := s.Has(Digest(o.data)); here {
				t.Error("it is published")
			}
			if left, _ := filepath.Glob(filepath.Join(s.dir, "partial", "*")); (left != nil) != c.kept {
				t.Errorf("%q are left", left)
			}
		})
	}
}

// TestGivenUpAtAnyByte checks that a fetch that is cancelled at any byte, and continued by a newly
// opened store each time, ends in the right file, and that no byte is fetched twice.
func TestGivenUpAtAnyByte(t *testing.T) {
	dir, o, r := t.TempDir(), &origin{data: random(400_000)}, rand.New(rand.NewPCG(2, 2))
	var travelled int64
	for range 50 {
		s := openStore(t, dir)
		o.answer = func(_ int, ctx context.Context, at int64) (io.ReadCloser, error) {
			rest := o.data[at:]
			return &gated{ctx: ctx, data: rest, half: min(len(rest), 1+r.IntN(15_000)), gate: nil}, nil
		}
		reader, err := s.Open(context.Background(), o.source())
		if err != nil {
			t.Fatal(err)
		}
		if travelled < int64(len(o.data)) {
			if _, err := io.ReadFull(reader, make([]byte, travelled+1)); err != nil {
				t.Fatal(err)
			}
		}
		reader.Close()
		_, fetched := reader.Progress()
		travelled += fetched
	}
	s := openStore(t, dir)
	o.answer = nil
	reader, err := s.Open(context.Background(), o.source())
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, o.data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	_, fetched := reader.Progress()
	if travelled += fetched; travelled != int64(len(o.data)) {
		t.Errorf("%d bytes travelled for %d", travelled, len(o.data))
	}
	wantBlob(t, s, o.data)
}

func TestPutAndReadAll(t *testing.T) {
	s, data := openStore(t, t.TempDir()), random(5000)
	digest, size, err := s.Put(context.Background(), bytes.NewReader(data))
	if err != nil || digest != Digest(data) || size != 5000 {
		t.Fatalf("Put gives %s, %d, %v", digest, size, err)
	}
	again, err := s.PutBytes(data)
	if err != nil || again != digest {
		t.Errorf("PutBytes gives %s, %v", again, err)
	}
	wantBlob(t, s, data)
	if got, err := s.ReadAll(context.Background(), digest, 5000); err != nil || !bytes.Equal(got, data) {
		t.Errorf("ReadAll gives %d bytes, %v", len(got), err)
	}
	if _, err := s.ReadAll(context.Background(), digest, 4999); err == nil {
		t.Error("ReadAll passes its limit")
	}
	if _, _, err := s.Put(context.Background(), errReader{io.ErrUnexpectedEOF}); err == nil {
		t.Error("half a Put is taken")
	}
	wantBlob(t, s, data)
}

func TestABlobOfNothing(t *testing.T) {
	s, o := openStore(t, t.TempDir()), &origin{}
	if got, err := readAll(t, s, o.source()); err != nil || len(got) > 0 || o.calls.Load() > 0 {
		t.Errorf("%d bytes of %d calls, %v", len(got), o.calls.Load(), err)
	}
	wantBlob(t, s, nil)
}

func TestMalformedDigestsAreRefused(t *testing.T) {
	s, hex := openStore(t, t.TempDir()), strings.Repeat("a1", 32)
	for _, digest := range []string{"", hex, "sha256:", "sha256:../../../../etc/passwd", "sha256:" + strings.ToUpper(hex),
		"sha256:" + hex[1:], "sha256:" + hex + "0", "sha512:" + hex, "sha256:" + hex[:60] + "/../"} {
		if _, err := s.Open(context.Background(), Source{Digest: digest}); err == nil {
			t.Errorf("Open takes %q", digest)
		}
		if _, err := s.ReadAll(context.Background(), digest, 10); err == nil ||
			!strings.Contains(err.Error(), "is not a sha256 digest") {
			t.Errorf("ReadAll of %q: %v", digest, err)
		}
		if _, ok := s.Has(digest); ok {
			t.Errorf("it has %q", digest)
		}
	}
}

// TestTheSizeIsPartOfTheName checks that a blob of another size than the source says is not
// delivered under its digest.
func TestTheSizeIsPartOfTheName(t *testing.T) {
	s, o := openStore(t, t.TempDir()), &origin{data: random(100)}
	if _, err := readAll(t, s, o.source()); err != nil {
		t.Fatal(err)
	}
	src := o.source()
	src.Size++
	if _, err := readAll(t, s, src); err == nil {
		t.Error("it is given")
	}
}

func TestCollect(t *testing.T) {
	s, kept, unused, under := openStore(t, t.TempDir()), random(10), random(20), &origin{data: random(1 << 20)}
	for _, p := range [][]byte{kept, unused} {
		if _, err := s.PutBytes(p); err != nil {
			t.Fatal(err)
		}
	}
	gate := make(chan struct{})
	under.behind(gate)
	flying, err := s.Open(context.Background(), under.source())
	if err != nil {
		t.Fatal(err)
	}
	defer flying.Close()
	reading, err := s.Open(context.Background(), Source{Digest: Digest(unused), Size: 20})
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Close()
	keep := func(d string) bool { return d == Digest(kept) }
	for _, dryRun := range []bool{true, false} {
		removed, err := s.Collect(keep, dryRun)
		if err != nil || len(removed) != 1 || removed[0].Digest != Digest(unused) {
			t.Errorf("dry run %v: %v, %v", dryRun, removed, err)
		}
		if _, ok := s.Has(Digest(unused)); ok != dryRun {
			t.Errorf("dry run %v: the blob is there: %v", dryRun, ok)
		}
	}
	if got, err := io.ReadAll(reading); err != nil || !bytes.Equal(got, unused) {
		t.Errorf("who was reading it got %d bytes, %v", len(got), err)
	}
	close(gate)
	if got, err := io.ReadAll(flying); err != nil || !bytes.Equal(got, under.data) {
		t.Errorf("what was on its way ends with %d bytes, %v", len(got), err)
	}
}

// TestMarkUnverified checks that after MarkUnverified a blob is hashed before it is delivered, and fetched again if
// it is wrong.
func TestMarkUnverified(t *testing.T) {
	s, o, good := openStore(t, t.TempDir()), &origin{data: random(1000)}, &origin{data: random(2000)}
	for _, o := range []*origin{o, good} {
		if _, err := readAll(t, s, o.source()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.Path(Digest(o.data)), random(1001)[1:], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.MarkUnverified(); err != nil {
		t.Fatal(err)
	}
	for _, o := range []*origin{o, good} {
		if got, err := readAll(t, s, o.source()); err != nil || !bytes.Equal(got, o.data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	if o.calls.Load() != 2 || good.calls.Load() != 1 {
		t.Errorf("the damaged one was asked for %d times, the other %d", o.calls.Load(), good.calls.Load())
	}
}
