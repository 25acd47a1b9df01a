package blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func (o *origin) failing(err error) {
	o.answer = func(int, context.Context, int64) (io.ReadCloser, error) { return nil, err }
}

func mustOpen(t *testing.T, s *Store, src Source) *Reader {
	t.Helper()
	r, err := s.Open(context.Background(), src)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// TestPartsOfAnEarlierLife checks what the next process does with partial files that an earlier one
// has left.
func TestPartsOfAnEarlierLife(t *testing.T) {
	data := random(10_000)
	damaged := bytes.Clone(data[:6000])
	damaged[3000] ^= 1
	for name, c := range map[string]struct {
		part  []byte
		asked []int64
		wrong bool
	}{
		"empty":                   {nil, []int64{0}, false},
		"one byte":                {data[:1], []int64{1}, false},
		"all but one":             {data[:9999], []int64{9999}, false},
		"whole, not published":    {data, nil, false},
		"longer than the blob":    {append(bytes.Clone(data), 0), []int64{0}, false},
		"damaged":                 {damaged, []int64{6000}, true},
		"as long, but of nothing": {make([]byte, 10_000), nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, o := openStore(t, t.TempDir()), &origin{data: data}
			if err := os.WriteFile(s.partial(Digest(data)), c.part, 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := readAll(t, s, o.source())
			if errors.Is(err, ErrDigest) != c.wrong || err != nil && !c.wrong {
				t.Fatalf("the error is %v", err)
			}
			if at := o.asked(); len(at) != len(c.asked) || len(at) > 0 && at[0] != c.asked[0] {
				t.Errorf("asked from %d, not %d", at, c.asked)
			}
			if _, err := readAll(t, s, o.source()); err != nil {
				t.Errorf("the second time: %v", err)
			}
			wantBlob(t, s, data)
		})
	}
}

// TestTooFewBytesForEver checks that a source which never has all of the promised bytes does not
// make a reader wait for ever.
func TestTooFewBytesForEver(t *testing.T) {
	s, o := openStore(t, t.TempDir()), &origin{data: random(1000)}
	o.answer = func(_ int, _ context.Context, at int64) (io.ReadCloser, error) {
		return o.cut(at, 999-int(at), io.EOF), nil
	}
	if _, err := readAll(t, s, o.source()); !errors.Is(err, ErrShort) {
		t.Errorf("the error is %v", err)
	}
	if n := o.calls.Load(); n != int64(s.Attempts) {
		t.Errorf("the source was asked %d times, not %d", n, s.Attempts)
	}
	if _, here := s.Has(Digest(o.data)); here {
		t.Error("it is published")
	}
}

// TestRetryAfterIsHonoured checks that the pause that the source asks for takes precedence over
// ours.
func TestRetryAfterIsHonoured(t *testing.T) {
	s, o := openStore(t, t.TempDir()), &origin{data: random(1000)}
	s.Backoff, s.MaxBackoff = time.Hour, time.Hour
	o.answer = func(call int, _ context.Context, at int64) (io.ReadCloser, error) {
		if call < 3 {
			return nil, later{}
		}
		return o.from(at), nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Fetch(ctx, o.source()); err != nil {
		t.Error(err)
	}
}

// TestComingWhileTheLastLeaves checks that a reader that comes while the last one leaves waits for
// the end of that flight and begins the next.
func TestComingWhileTheLastLeaves(t *testing.T) {
	s, o := openStore(t, t.TempDir()), &origin{data: random(100_000)}
	asked, leaving, leave := make(chan struct{}), make(chan struct{}), make(chan struct{})
	o.answer = func(call int, ctx context.Context, at int64) (io.ReadCloser, error) {
		if call > 1 {
			return o.from(at), nil
		}
		close(asked)
		<-ctx.Done()
		close(leaving)
		<-leave
		return nil, ctx.Err()
	}
	first := mustOpen(t, s, o.source())
	<-asked
	var wg sync.WaitGroup
	wg.Go(func() { first.Close() })
	<-leaving
	for range 20 {
		wg.Go(func() {
			r, err := s.Open(context.Background(), o.source())
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, o.data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	close(leave)
	wg.Wait()
	wantBlob(t, s, o.data)
}

// TestTheSizeIsPartOfTheNameOfAFlight checks two manifests that promise different sizes for one
// digest. The wrong one fails and does not make the other fail.
func TestTheSizeIsPartOfTheNameOfAFlight(t *testing.T) {
	for name, c := range map[string]struct{ first, second int64 }{
		"the wrong one comes first":  {1, 0},
		"the wrong one comes second": {0, 1},
		"less comes first":           {-1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) { bothSizes(t, dir, c.first, c.second) })
		})
	}
}

// bothSizes fetches one blob twice at the same time, with sizes that differ from the right one by
// the given numbers.
func bothSizes(t *testing.T, dir string, wrongBy ...int64) {
	s, o, gate := openStore(t, dir), &origin{data: random(1000)}, make(chan struct{})
	o.behind(gate)
	var wg sync.WaitGroup
	for _, more := range wrongBy {
		src := o.source()
		src.Size += more
		wg.Go(func() {
			if got, err := readAll(t, s, src); (err == nil) != (more == 0) {
				t.Errorf("with a size that is wrong by %d: %d bytes, %v", more, len(got), err)
			}
		})
		synctest.Wait() // it has the first half, or waits for the second
	}
	close(gate)
	wg.Wait()
}

// TestASlowReaderIsNotToldOfAnEnd checks a slow reader of a failed flight. What another flight does
// to the partial file must not look to the reader like the end of a complete blob.
func TestASlowReaderIsNotToldOfAnEnd(t *testing.T) {
	s, o := openStore(t, t.TempDir()), &origin{data: random(1000)}
	o.answer = func(call int, _ context.Context, at int64) (io.ReadCloser, error) {
		if call == 1 {
			return o.cut(at, 600, final{}), nil
		}
		return nil, final{}
	}
	slow := mustOpen(t, s, o.source())
	if err := slow.wait(); !errors.Is(err, final{}) {
		t.Fatal(err)
	}
	smaller := o.source() // of another manifest, which has the wrong size
	smaller.Size = 500
	if _, err := readAll(t, s, smaller); err == nil {
		t.Fatal("a blob of another size is given")
	}
	got, err := io.ReadAll(slow)
	if err == nil {
		t.Errorf("the slow reader was told that %d bytes of 1000 are all", len(got))
	}
}

// TestAPartialFileThatCannotBe checks that no reader waits for ever if the directory is not
// writable or the disk is full.
func TestAPartialFileThatCannotBe(t *testing.T) {
	s, o := openStore(t, t.TempDir()), &origin{data: random(1000)}
	if err := os.Mkdir(s.partial(Digest(o.data)), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(t, s, o.source()); err == nil || o.calls.Load() > 0 {
		t.Errorf("%d calls, %v", o.calls.Load(), err)
	}
	if err := os.Remove(s.partial(Digest(o.data))); err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(t, s, o.source()); err != nil {
		t.Errorf("the second time: %v", err)
	}
}

// TestAfterAFailureTheNextOneTries checks that a failure is not remembered: the next reader gets a
// new flight.
func TestAfterAFailureTheNextOneTries(t *testing.T) {
	s, o := openStore(t, t.TempDir()), &origin{data: random(1000)}
	o.failing(final{})
	failed := mustOpen(t, s, o.source())
	if err := failed.wait(); !errors.Is(err, final{}) {
		t.Fatal(err)
	}
	o.answer = nil
	if got, err := readAll(t, s, o.source()); err != nil || !bytes.Equal(got, o.data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := io.ReadAll(failed); !errors.Is(err, final{}) {
		t.Errorf("who failed hears now %v", err)
	}
}

func TestFetchEndsWithItsCaller(t *testing.T) {
	s, o := openStore(t, t.TempDir()), &origin{data: random(1000)}
	ctx, cancel := context.WithCancel(context.Background())
	o.answer = func(_ int, flight context.Context, _ int64) (io.ReadCloser, error) {
		cancel()
		<-flight.Done()
		return nil, flight.Err()
	}
	if err := s.Fetch(ctx, o.source()); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "sha256", "*")); left != nil {
		t.Errorf("%q are published", left)
	}
}

// TestWhoJoinsHasASourceOfItsOwn checks images of two registries that share a blob. If the first
// registry refuses the blob or sends wrong bytes, the second reader fetches it elsewhere.
func TestWhoJoinsHasASourceOfItsOwn(t *testing.T) {
	for name, end := range map[string]func(bad *origin, at int64) io.ReadCloser{
		"it refuses": func(bad *origin, at int64) io.ReadCloser { return bad.cut(at, 500, final{}) },
		"it lies":    func(bad *origin, at int64) io.ReadCloser { return io.NopCloser(bytes.NewReader(random(1001)[1:])) },
	} {
		t.Run(name, func(t *testing.T) {
			s, bad, good := openStore(t, t.TempDir()), &origin{data: random(1000)}, &origin{data: random(1000)}
			gate := make(chan struct{})
			bad.answer = func(_ int, _ context.Context, at int64) (io.ReadCloser, error) {
				<-gate
				return end(bad, at), nil
			}
			first := mustOpen(t, s, bad.source())
			second := mustOpen(t, s, good.source())
			close(gate)
			if err := first.wait(); err == nil {
				t.Error("the first one gets it")
			}
			if err := second.wait(); err == nil {
				return
			}
			// The most that is needed is to open it again.
			if err := s.Fetch(context.Background(), good.source()); err != nil {
				t.Errorf("the second one cannot have it: %v", err)
			}
		})
	}
}
