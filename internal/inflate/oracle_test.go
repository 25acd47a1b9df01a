//go:build (amd64 || arm64) && !banger_noinflate

package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
)

// oracle returns what compress/flate makes of a stream: its output and whether it ended without an
// error.
func oracle(in []byte) ([]byte, error) {
	if err := reference.(flate.Resetter).Reset(bytes.NewReader(in), nil); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(reference, maxOutput))
}

var reference = flate.NewReader(nil)

// maxOutput is the largest output in a test; a few bytes could otherwise produce much more.
const maxOutput = 1 << 20

// guarded is a decoder with guard bytes after its window and its input.
var guarded, fences = func() (*decoder, [][]byte) {
	d := newDecoder()
	var fences [][]byte
	for _, buf := range []*[]byte{&d.out, &d.buf} {
		p := bytes.Repeat([]byte{0xa5}, len(*buf)+4096)
		fences = append(fences, p[len(*buf):])
		*buf = p[:len(*buf):len(*buf)]
	}
	return d, fences
}()

func ours(r io.Reader) ([]byte, error) {
	out, err := io.ReadAll(io.LimitReader(newReader(r, guarded, inStream), maxOutput))
	for _, f := range fences {
		if bytes.Count(f, []byte{0xa5}) != len(f) {
			panic("a store behind a buffer")
		}
	}
	return out, err
}

// agree compares output, acceptance and the kind of error with those of compress/flate.
func agree(t *testing.T, in []byte) {
	t.Helper()
	want, wantErr := oracle(in)
	got, err := ours(bytes.NewReader(in))
	if !bytes.Equal(got, want) {
		t.Fatalf("of %x: %d bytes of output, not the %d of compress/flate", head(in), len(got), len(want))
	}
	_, corrupt := errors.AsType[flate.CorruptInputError](wantErr)
	switch {
	case (err == nil) != (wantErr == nil), errors.Is(err, io.ErrUnexpectedEOF) != errors.Is(wantErr, io.ErrUnexpectedEOF),
		errors.Is(err, ErrCorrupt) != corrupt:
		t.Fatalf("of %x: the error is %v, that of compress/flate %v", head(in), err, wantErr)
	}
}

func head(in []byte) []byte { return in[:min(len(in), 300)] }

// TestReadersThatAreSlowOrFail checks that the output does not depend on how the input arrives.
func TestReadersThatAreSlowOrFail(t *testing.T) {
	p := material(rand.New(rand.NewPCG(2, 2)), 70_000)
	in := compress(t, p, 6)
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		r    io.Reader
		want error
	}{
		"a byte at a time":      {iotest.OneByteReader(bytes.NewReader(in)), nil},
		"half of what is asked": {iotest.HalfReader(bytes.NewReader(in)), nil},
		"data with the end":     {iotest.DataErrReader(bytes.NewReader(in)), nil},
		"an error half-way":     {io.MultiReader(bytes.NewReader(in[:len(in)/2]), iotest.ErrReader(broken)), broken},
		"never anything":        {idle{}, io.ErrNoProgress},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ours(c.r)
			if err != c.want || err == nil && !bytes.Equal(got, p) || !bytes.HasPrefix(p, got) {
				t.Errorf("%d bytes and %v", len(got), err)
			}
		})
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// stream writes hand-made streams, the first bit of each byte lowest (RFC 1951, section
// 3.1.1). Numbers are "value:bits", words of 0 and 1 are Huffman codes.
func stream(spec string) []byte {
	var out []byte
	n := 0
	put := func(b int) {
		if n%8 == 0 {
			out = append(out, 0)
		}
		out[n/8] |= byte(b << (n % 8))
		n++
	}
	for word := range strings.FieldsSeq(spec) {
		value, width, number := strings.Cut(word, ":")
		if !number {
			for _, c := range word {
				put(int(c - '0'))
			}
			continue
		}
		v, _ := strconv.Atoi(value)
		w, _ := strconv.Atoi(width)
		for i := range w {
			put(v >> i & 1)
		}
	}
	return out
}

// TestHandMadeBlocksAreTakenAsCompressFlateTakesThem checks what compress/flate accepts and
// refuses, rule by rule.
func TestHandMadeBlocksAreTakenAsCompressFlateTakesThem(t *testing.T) {
	// The start of a dynamic block with 257+l literals and 1+d distances, whose code
	// length codes are: 0 and 1 of two bits, 18 of two, 17 of two (order 16 17 18 0 …).
	lengths := " 14:4 0:3 2:3 2:3 2:3" + strings.Repeat(" 0:3", 13) + " 2:3" // 18 lengths; last is that of 1
	start := func(l, d int) string {
		return "1:1 2:2 " + strconv.Itoa(l) + ":5 " + strconv.Itoa(d) + ":5" + lengths
	}
	// Codes by value: 0=00 1=01 17=10 18=11
	for name, spec := range map[string]string{
		"nothing":                          "",
		"reserved type":                    "1:1 3:2",
		"empty stored":                     "1:1 0:2 0:5 0:16 65535:16",
		"stored with a bad complement":     "1:1 0:2 0:5 0:16 65534:16",
		"stored that is cut":               "1:1 0:2 0:5 9:16 65526:16 1:8",
		"empty fixed":                      "1:1 1:2 0000000",
		"fixed literal":                    "1:1 1:2 00110000 0000000",
		"fixed length code 286":            "1:1 1:2 11000110 00000 0000000",
		"fixed length code 287":            "1:1 1:2 11000111 00000 0000000",
		"fixed distance code 30":           "1:1 1:2 00110000 0000001 11110 0000000",
		"fixed distance too far":           "1:1 1:2 00110000 0000001 00001 0000000",
		"fixed distance that just reaches": "1:1 1:2 00110000 0000001 00000 0000000",
		"287 literals":                     start(30, 0),
		"31 distances":                     start(0, 30),
		"only the end, single code":        start(0, 0) + " 11 117:7 11 107:7 01 00 0",
		"single code, the other bit":       start(0, 0) + " 11 117:7 11 107:7 01 00 1",
		"no code at all":                   start(0, 0) + " 11 117:7 11 107:7 00 00 0",
		"one literal and the end":          start(0, 0) + " 11 54:7 01 11 117:7 11 42:7 01 00 00001 1",
		"too many lengths":                 start(0, 0) + " 11 127:7 11 127:7",
		"code length codes incomplete":     "1:1 2:2 0:5 0:5 0:4 1:3 2:3 0:3 0:3",
		"code length codes too many":       "1:1 2:2 0:5 0:5 0:4 1:3 1:3 1:3 1:3",
		"repeat of nothing":                "1:1 2:2 0:5 0:5 0:4 1:3 0:3 0:3 1:3 0",
	} {
		t.Run(name, func(t *testing.T) {
			in := stream(spec)
			agree(t, in)
			agree(t, append(in, make([]byte, 100)...)) // so that the fast loop has it too
		})
	}
}

func join(list ...[]byte) []byte { return bytes.Join(list, nil) }

func TestGzipFraming(t *testing.T) {
	one := member(t, []byte("one"), nil)
	edit := func(i int, b byte) []byte {
		p := bytes.Clone(one)
		p[(i+len(p))%len(p)] = b
		return p
	}
	withCRC := join(edit(3, 2)[:10], []byte{1, 2}, one[10:])
	for name, c := range map[string]struct {
		in   []byte
		out  string
		want error
	}{
		"one member":        {one, "one", nil},
		"two members":       {join(one, member(t, []byte("two"), nil)), "onetwo", nil},
		"an empty member":   {join(member(t, nil, nil), one), "one", nil},
		"zeros behind":      {join(one, make([]byte, 1000)), "one", nil},
		"junk behind":       {join(one, []byte("junk")), "one", ErrHeader},
		"junk behind zeros": {join(one, make([]byte, 9), []byte{1}), "one", ErrHeader},
		"all fields": {member(t, []byte("one"), func(h *gzip.Header) {
			h.Name, h.Comment, h.Extra = "name", "comment", make([]byte, 60000)
		}), "one", nil},
		"a header checksum":  {withCRC, "one", nil},
		"a name without end": {join(edit(3, 8)[:10], bytes.Repeat([]byte("n"), 1<<17)), "", ErrHeader},
		"nothing":            {nil, "", io.ErrUnexpectedEOF},
		"no gzip":            {[]byte("plain text"), "", ErrHeader},
		"another method":     {edit(2, 7), "", ErrHeader},
		"reserved flags":     {edit(3, 0x20), "", ErrHeader},
		"a wrong size":       {edit(-4, 9), "one", ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			z := NewReader(bytes.NewReader(c.in))
			defer z.Close()
			out, err := io.ReadAll(z)
			if string(out) != c.out || !errors.Is(err, c.want) {
				t.Errorf("%q and %v, not %q and %v", out, err, c.out, c.want)
			}
		})
	}
}

// TestAReaderSeesNothingOfTheOneBefore checks that a stream cannot see what an earlier one has left
// in the window that it reuses.
func TestAReaderSeesNothingOfTheOneBefore(t *testing.T) {
	secret := NewFlate(bytes.NewReader(compress(t, bytes.Repeat([]byte("secret"), 20000), 6)))
	if _, err := io.Copy(io.Discard, secret); err != nil {
		t.Fatal(err)
	}
	secret.Close()
	if _, err := secret.Read(make([]byte, 1)); err == nil {
		t.Error("a closed reader reads")
	}
	agree(t, stream("1:1 1:2 00110000 0000001 00001 0000000"))
	two := join(member(t, []byte("first"), nil), one(stream("1:1 1:2 0000001 00000 0000000"), 3))
	z := NewReader(bytes.NewReader(two))
	defer z.Close()
	if out, err := io.ReadAll(z); !errors.Is(err, ErrCorrupt) || string(out) != "first" {
		t.Errorf("a distance into the member before gives %q and %v", out, err)
	}
}

// one puts a gzip frame around a raw stream.
func one(raw []byte, size uint32) []byte {
	return binary.LittleEndian.AppendUint32(join([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, raw, make([]byte, 4)), size)
}

// executions returns how many mutated streams are compared: a few in every run, 10^7 if
// INFLATE_EXECUTIONS asks for them.
func executions() int {
	if n, err := strconv.Atoi(os.Getenv("INFLATE_EXECUTIONS")); err == nil {
		return n
	}
	return 10_000
}

// TestDamagedStreamsAreTakenAsCompressFlateTakesThem checks damaged streams of all kinds against
// compress/flate: the output and the verdict must be the same.
func TestDamagedStreamsAreTakenAsCompressFlateTakesThem(t *testing.T) {
	r := rand.New(rand.NewPCG(3, uint64(executions())))
	var seeds [][]byte
	for range 60 {
		seeds = append(seeds, compress(t, material(r, r.IntN(1500)), []int{1, 6, 9, flate.HuffmanOnly, 0}[r.IntN(5)]))
	}
	for range executions() {
		agree(t, damaged(r, seeds))
	}
}

func damaged(r *rand.Rand, seeds [][]byte) []byte {
	p := bytes.Clone(seeds[r.IntN(len(seeds))])
	for range 1 + r.IntN(3) {
		switch r.IntN(6) {
		case 0, 1, 2:
			p[r.IntN(min(len(p), 1+r.IntN(120)))] ^= 1 << r.IntN(8)
		case 3:
			p = p[:1+r.IntN(len(p))]
		case 4:
			q := seeds[r.IntN(len(seeds))]
			p = append(p[:r.IntN(len(p))], q[r.IntN(len(q)):]...)
		case 5:
			p[r.IntN(len(p))] = byte(r.Uint32())
		}
		if len(p) == 0 {
			return []byte{byte(r.Uint32())}
		}
	}
	return p
}

func FuzzFlate(f *testing.F) {
	r := rand.New(rand.NewPCG(4, 4))
	for level := range 10 {
		f.Add(compress(f, material(r, 300), level))
	}
	f.Add(stream("1:1 1:2 00110000 0000001 00000 0000000"))
	f.Fuzz(func(t *testing.T, in []byte) { agree(t, in) })
}
