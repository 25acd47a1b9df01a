package sparse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// fileOf makes a file of the given size with data of one page at the offsets.
func fileOf(t *testing.T, size int64, offsets ...int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, at := range offsets {
		if _, err := f.WriteAt(bytes.Repeat([]byte{byte(at>>12 + 1)}, 4096), at); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestPiecesOfAFile(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		size    int64
		offsets []int64
		want    string
	}{
		"empty":              {0, nil, "[]"},
		"only a hole":        {mib, nil, "[]"},
		"a hole at each end": {3 * mib, []int64{mib}, "[{1048576 1052672}]"},
		"two pieces":         {2*mib + 4096, []int64{0, 2 * mib}, "[{0 4096} {2097152 2101248}]"},
	} {
		t.Run(name, func(t *testing.T) {
			f := fileOf(t, c.size, c.offsets...)
			got := []struct{ start, end int64 }{}
			if err := Each(f, func(start, end int64) error {
				got = append(got, struct{ start, end int64 }{start, end})
				return nil
			}); err != nil || fmt.Sprint(got) != c.want {
				t.Errorf("the pieces are %v, %v", got, err)
			}
		})
	}
	f := fileOf(t, mib, mib/2)
	if _, end, err := Next(int(f.Fd()), 0, mib/2+100); end != mib/2+100 || err != nil {
		t.Errorf("a piece beyond the size ends at %d, %v", end, err)
	}
	if _, _, err := Next(int(f.Fd()), 0, mib/4); err != io.EOF {
		t.Errorf("a piece that starts beyond the size is %v", err)
	}
}

// TestZerosBecomeHoles, whole blocks of them, and the content stays.
func TestZerosBecomeHoles(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		size      int64
		offsets   []int64 // of pages with data, in a file that is written in full
		allocated int64   // at most
	}{
		"only zeros":                     {4 * mib, nil, 0},
		"no zeros":                       {8192, []int64{0, 4096}, 8192},
		"data at both ends":              {4 * mib, []int64{0, 4*mib - 4096}, 8192},
		"data at the borders of a piece": {4 * mib, []int64{mib - 4096, mib, 3 * mib}, 3 * 4096},
		"an end that fills no block":     {mib + 100, []int64{mib / 2}, 8192},
		"an empty file":                  {0, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			data := make([]byte, c.size)
			for _, at := range c.offsets {
				data[at+17] = 1
			}
			path := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := Dig(t.Context(), f); err != nil {
				t.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
				t.Errorf("the content has changed: %d bytes, %v", len(got), err)
			}
			if Allocated(info) > c.allocated {
				t.Errorf("it takes %d bytes, more than %d", Allocated(info), c.allocated)
			}
		})
	}
}

func TestACopyHasTheSameBytesAndHoles(t *testing.T) {
	src, dst := fileOf(t, 40<<20, 0, 20<<20, 40<<20-4096), fileOf(t, 0)
	if err := Copy(t.Context(), dst, src); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(src.Name())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst.Name()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy of %d bytes differs: %d bytes, %v", len(want), len(got), err)
	}
	if info, err := dst.Stat(); err != nil || Allocated(info) > 1<<20 {
		t.Errorf("the copy takes %d bytes, %v: its holes are filled", Allocated(info), err)
	}
}

func TestACopyEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	src, dst := fileOf(t, 1<<20, 0), fileOf(t, 0)
	if err := copyRange(ctx, dst, src, 0, 4096); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}
