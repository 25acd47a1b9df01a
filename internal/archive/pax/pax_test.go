package pax

import (
	"bytes"
	"io"
	"math/rand"
	"reflect"
	"strings"
	"testing"
	"time"
)

// randomHeader returns a header with numbers and names of all lengths.
func randomHeader(r *rand.Rand) Header {
	names := []string{"f", "d/é", strings.Repeat("n/", 90) + "f", strings.Repeat("x", 100), "a b\n\"", "=1 2"}
	h := Header{
		Kind:   KindFile,
		Name:   names[r.Intn(len(names))],
		Mode:   uint32(r.Intn(0o10000)),
		UID:    uint32(r.Int63n(1<<32 - 1)),
		GID:    uint32(r.Intn(2000)),
		Mtime:  time.Unix(r.Int63n(1<<35)-1<<34, r.Int63n(2)*r.Int63n(1e9)),
		Links:  r.Intn(2) * r.Intn(5),
		Xattrs: map[string]string{"user.x": string(rune(r.Intn(128))), "user.empty": ""},
	}
	switch r.Intn(4) {
	case 0:
		h.Kind, h.Target = KindSymlink, names[r.Intn(len(names))]
	case 1:
		h.Kind, h.Major, h.Minor = KindChar, uint32(r.Intn(1<<12)), uint32(r.Intn(1<<20))
	case 2:
		h.Size = r.Int63n(2000)
	case 3:
		h.Sparse, h.RealSize = true, r.Int63n(1<<40)+2*BlockSize
	}
	return h
}

// TestEveryHeaderIsReadAsItWasWritten checks that Reader returns what Encode and EncodeMap wrote.
func TestEveryHeaderIsReadAsItWasWritten(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	var tar bytes.Buffer
	var want []Header
	var pieces [][]Piece
	for range 1000 {
		h := randomHeader(r)
		list := []Piece{{0, h.Size}}
		var sparseMap []byte
		if h.Sparse {
			list = []Piece{{h.RealSize / 2, 10}, {h.RealSize, 0}}
			sparseMap = EncodeMap(list[:1], h.RealSize)
			h.Size = int64(len(sparseMap)) + 10
		}
		b, err := h.Encode()
		if err != nil {
			t.Fatal(err)
		}
		tar.Write(b)
		tar.Write(sparseMap)
		data := h.Size - int64(len(sparseMap))
		tar.Write(make([]byte, data+(-data&(BlockSize-1))))
		want, pieces = append(want, h), append(pieces, list)
	}
	tar.Write(make([]byte, 2*BlockSize))
	in := NewReader(&tar)
	for i, w := range want {
		got, err := in.Next()
		if err != nil {
			t.Fatalf("header %d: %v", i, err)
		}
		if w.Mtime.Equal(got.Mtime) {
			got.Mtime = w.Mtime
		}
		if !reflect.DeepEqual(*got, w) {
			t.Errorf("header %d is %+v, not %+v", i, *got, w)
		}
		if list, err := in.Pieces(got); err != nil || !reflect.DeepEqual(list, pieces[i]) {
			t.Errorf("the pieces of header %d are %v, %v, not %v", i, list, err, pieces[i])
		}
	}
	if _, err := in.Next(); err != io.EOF {
		t.Errorf("after the last header comes %v", err)
	}
	if err := in.Drain(BlockSize); err != nil {
		t.Error(err)
	}
}
