package sparse

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func numbers(n ...uint64) []byte {
	var b []byte
	for _, v := range n {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func newFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestAStreamHasNoHoles: a file with holes is the same at the other end, and its holes do not travel.
func TestAStreamHasNoHoles(t *testing.T) {
	const size = 64 << 20
	from, to := newFile(t), newFile(t)
	from.WriteAt(bytes.Repeat([]byte("a"), 5000), 0)
	from.WriteAt([]byte("end"), size-3)
	from.WriteAt(bytes.Repeat([]byte("m"), 1<<20), 32<<20)
	var stream bytes.Buffer
	if err := Send(&stream, from); err != nil {
		t.Fatal(err)
	}
	if stream.Len() > 2<<20 {
		t.Errorf("the stream has %d bytes", stream.Len())
	}
	if n, err := Receive(&stream, to, size); n != size || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	want, _ := os.ReadFile(from.Name())
	if got, err := os.ReadFile(to.Name()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file has other content, %v", err)
	}
}

// TestStreamsThatAreNone are refused, whatever they claim.
func TestStreamsThatAreNone(t *testing.T) {
	for name, stream := range map[string][]byte{
		"empty":            nil,
		"only a size":      numbers(10),
		"cut in a piece":   append(numbers(10, 0, 10), "short"...),
		"behind the end":   append(numbers(10, 8, 4), "four"...),
		"an endless piece": append(numbers(10, 1, 1<<63), "four"...),
		"going back":       append(append(numbers(10, 4, 4), "four"...), append(numbers(0, 4), "four"...)...),
		"an early end":     numbers(10, 4, 0),
	} {
		if _, err := Receive(bytes.NewReader(stream), newFile(t), 1<<20); !errors.Is(err, ErrStream) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Receive(bytes.NewReader(numbers(1<<40, 1<<40, 0)), newFile(t), 1<<20); !errors.Is(err, ErrSize) {
		t.Errorf("a large file: %v", err)
	}
	if _, err := Receive(io.MultiReader(bytes.NewReader(numbers(0, 0, 0))), newFile(t), 0); err != nil {
		t.Errorf("an empty file: %v", err)
	}
}
