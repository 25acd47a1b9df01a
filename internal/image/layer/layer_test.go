package layer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"banger"
	"banger/internal/blob"
	"banger/internal/testing/imagetest"
)

// TestPackedLayers checks that a layer that was packed has the digests that it says, and is recognised and decoded.
func TestPackedLayers(t *testing.T) {
	blobs, err := blob.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tar := imagetest.Tar(imagetest.File("f", strings.Repeat("content ", 100_000)))
	l, err := Pack(blobs, bytes.NewReader(tar))
	if err != nil {
		t.Fatal(err)
	}
	data, err := blobs.ReadAll(t.Context(), l.Digest, l.Size)
	if err != nil || int64(len(data)) != l.Size || l.DiffID != blob.Digest(tar) || TypeOf(data[:4]) != l.MediaType {
		t.Errorf("the layer is %+v, and its blob has %d bytes, %v", l, len(data), err)
	}
	plain, free, err := Decompress(bufio.NewReader(bytes.NewReader(data)))
	if err != nil {
		t.Fatal(err)
	}
	defer free()
	h := NewHashReader(plain)
	defer h.Stop()
	if n, err := io.Copy(io.Discard, h); n != int64(len(tar)) || err != nil {
		t.Errorf("%d bytes are decoded, %v", n, err)
	}
	if sum := h.Sum(); sum != l.DiffID {
		t.Errorf("what is decoded is %s, not %s", sum, l.DiffID)
	}
}

func TestTypesByTheFirstBytes(t *testing.T) {
	for want, data := range map[string][]byte{
		"":      []byte("plain"),
		"+gzip": imagetest.Gzip(nil),
		"+zstd": imagetest.Zstd([]byte("x")),
	} {
		if got := TypeOf(data[:4]); got != MediaType+want {
			t.Errorf("the type is %s, not %s", got, MediaType+want)
		}
	}
	if got := TypeOf(nil); got != MediaType {
		t.Errorf("the type of no bytes is %s", got)
	}
}

// TestEach checks that every layer is counted and that the first error names its layer and ends the others.
func TestEach(t *testing.T) {
	layers := []Descriptor{{Digest: "a", Size: 3}, {Digest: "b", Size: 4}}
	var mu sync.Mutex
	done := map[string]int64{}
	emit := func(e banger.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Done {
			done[e.Layer] = e.Bytes
		}
	}
	err := Each(t.Context(), layers, emit, func(_ context.Context, i int, m *Meter) error {
		_, err := io.CopyN(io.Discard, m.Reader(zeros{}), layers[i].Size)
		return err
	})
	if err != nil || done["a"] != 3 || done["b"] != 4 {
		t.Errorf("the layers are %v, %v", done, err)
	}
	broken := errors.New("broken")
	err = Each(t.Context(), layers, banger.Discard, func(ctx context.Context, i int, _ *Meter) error {
		if i == 1 {
			return broken
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, broken) || err.Error() != "layer 2: broken" {
		t.Errorf("the error is %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return min(len(p), 1), nil
}
