package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"io"
	"math/rand/v2"
	"testing"
)

// material returns data of one kind; some kinds compress well, and some badly.
func material(r *rand.Rand, n int) []byte {
	p := make([]byte, n)
	switch r.IntN(6) {
	case 0: // noise
		for i := range p {
			p[i] = byte(r.Uint32())
		}
	case 1: // few letters
		for i := range p {
			p[i] = "abcd"[r.IntN(4)]
		}
	case 2: // one run after another
		for i := 0; i < n; {
			b, k := byte(r.Uint32()), 1+r.IntN(600)
			for ; k > 0 && i < n; k, i = k-1, i+1 {
				p[i] = b
			}
		}
	case 3: // repeats at every distance
		for i := range p {
			if i > 0 && r.IntN(20) > 0 {
				p[i] = p[max(0, i-1-r.IntN(min(i, 1+r.IntN(40000))))]
			} else {
				p[i] = byte(r.Uint32())
			}
		}
	case 4: // periods shorter than a word
		period := 1 + r.IntN(20)
		for i := range p {
			if i < period || r.IntN(500) == 0 {
				p[i] = byte(r.Uint32())
			} else {
				p[i] = p[i-period]
			}
		}
	} // else zeros
	return p
}

func compress(t testing.TB, p []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err == nil {
		_, err = w.Write(p)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestEveryKindAndLevelComesBack(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 40 {
		level := []int{flate.NoCompression, flate.BestSpeed, flate.DefaultCompression, flate.BestCompression,
			flate.HuffmanOnly}[i%5]
		p := material(r, r.IntN(600_000))
		z := NewFlate(bytes.NewReader(compress(t, p, level)))
		got, err := io.ReadAll(z)
		z.Close()
		if err != nil || !bytes.Equal(got, p) {
			t.Fatalf("round %d, level %d: %d of %d bytes, %v", i, level, len(got), len(p), err)
		}
	}
}

func member(t testing.TB, p []byte, change func(*gzip.Header)) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if change != nil {
		change(&w.Header)
	}
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGzipThatIsCutAnywhere(t *testing.T) {
	whole := member(t, []byte("some text, some text, some more"), func(h *gzip.Header) {
		h.Name, h.Extra = "n", []byte("x")
	})
	for n := range whole {
		z := NewReader(bytes.NewReader(whole[:n]))
		if _, err := io.ReadAll(z); err != io.ErrUnexpectedEOF {
			t.Errorf("after %d of %d bytes: %v", n, len(whole), err)
		}
		z.Close()
	}
}
