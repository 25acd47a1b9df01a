package convert

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"sync"
	"testing"

	"banger/internal/ext4"
	"banger/internal/image/layer"
	"banger/internal/testing/imagetest"
)

// memory is a sparse file in memory, for a file system that is not mounted.
type memory struct {
	mu     sync.Mutex
	blocks map[int64][]byte
}

const memoryBlock = 64 << 10

func newMemory() *memory { return &memory{blocks: map[int64][]byte{}} }

func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := 0; n < len(p); {
		i, from := (at+int64(n))/memoryBlock, int((at+int64(n))%memoryBlock)
		if m.blocks[i] == nil {
			m.blocks[i] = make([]byte, memoryBlock)
		}
		n += copy(m.blocks[i][from:], p[n:])
	}
	return len(p), nil
}

func (m *memory) Truncate(size int64) error { return nil }

// FuzzLayer reads any bytes as a layer, and again as the layer above itself, and writes
// the file system that they are: a result or a refusal, never a panic.
func FuzzLayer(f *testing.F) {
	for _, l := range imagetest.Rich() {
		p := []byte(l.Data)
		if r, closeReader, err := plainOf(p); err == nil {
			if q, err := io.ReadAll(r); err == nil {
				p = q
			}
			closeReader()
		}
		f.Add(p)
	}
	f.Add(tarOf(symlink("a", "b"), symlink("b", "a"), file("a/f", ""), hardLink("h", "a/f")))
	f.Add(tarOf(file("d/.wh..wh..opq", ""), file(".wh.d", ""), dir("d"), hardLink("d/x", "d/y"), file("d/y", "1")))
	f.Add(imagetest.Holes("f", 1<<20))
	f.Add(append(imagetest.GlobalHeader(), tarOf(file("../../f", "x"))...))
	f.Fuzz(func(t *testing.T, p []byte) {
		limits := &budget{Limits: Limits{Bytes: 8 << 20, Entries: 1000, Ratio: 1000}}
		w, err := ext4.New(newMemory(), ext4.Options{Size: ext4.MinSize})
		if err != nil {
			t.Fatal(err)
		}
		areas, tr := w.Areas(2), newTree(w)
		for _, a := range areas {
			list, err := readLayer(context.Background(), bytes.NewReader(p), a, limits)
			if cerr := a.Close(); err == nil {
				err = cerr
			}
			if err == nil {
				err = tr.apply(list)
			}
			if err != nil {
				for _, a := range areas {
					a.Close()
				}
				return
			}
		}
		_ = w.Finish(tr.root) // may be refused for its size
	})
}

func plainOf(p []byte) (io.Reader, func(), error) {
	return layer.Decompress(bufio.NewReader(bytes.NewReader(p)))
}
