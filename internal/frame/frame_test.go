package frame

import (
	"banger"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestFramesComeBackAsTheyWereWritten(t *testing.T) {
	frames := []struct {
		kind    Type
		payload []byte
	}{
		{Request, []byte(`{"a":1}`)}, {StdinEOF, nil}, {Stdout, bytes.Repeat([]byte("x"), MaxData)},
		{Stdout, bytes.Repeat([]byte("y"), Max)}, {Stderr, []byte{0}}, {255, []byte("unknown types pass")},
	}
	var stream bytes.Buffer
	for _, f := range frames {
		if err := Write(&stream, f.kind, f.payload); err != nil {
			t.Fatal(err)
		}
	}
	for name, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r },
		"by halves": iotest.HalfReader} {
		t.Run(name, func(t *testing.T) {
			r := NewReader(wrap(bytes.NewReader(stream.Bytes())))
			for i, f := range frames {
				if kind, p, err := r.Next(); err != nil || kind != f.kind || !bytes.Equal(p, f.payload) {
					t.Errorf("frame %d is of type %d with %d bytes, %v", i, kind, len(p), err)
				}
			}
			if _, _, err := r.Next(); err != io.EOF {
				t.Errorf("the end is %v, not EOF", err)
			}
		})
	}
}

// lending is a reader that lends its buffer, a few bytes at a time.
type lending struct{ *bytes.Reader }

func (l lending) ReadChunk(max int) ([]byte, error) {
	b := make([]byte, min(max, 1000))
	n, err := l.Read(b)
	return b[:n], err
}

// TestFramesWithASink checks that NextTo passes the payloads of one type to the sink, in any number of pieces, and
// returns the other frames, whether or not the reader lends its buffers.
func TestFramesWithASink(t *testing.T) {
	var stream bytes.Buffer
	for _, size := range []int{0, 1, 5000} {
		Write(&stream, Stdin, bytes.Repeat([]byte{byte(size)}, size))
		Write(&stream, Signal, []byte{15})
	}
	Write(&stream, Stdin, []byte("cut"))
	stream.Truncate(stream.Len() - 1)
	data := bytes.NewReader(stream.Bytes())
	for name, src := range map[string]io.Reader{"plain": iotest.HalfReader(data), "lending": lending{data}} {
		t.Run(name, func(t *testing.T) {
			data.Seek(0, io.SeekStart)
			r := NewReader(src)
			var sunk int
			sink := func(p []byte) { sunk += len(p) }
			for i, want := range []int{0, 0, 1, 1, 5001, 5001} {
				kind, p, err := r.NextTo(Stdin, sink)
				if wantKind := []Type{Stdin, Signal}[i%2]; err != nil || kind != wantKind || len(p) != i%2 ||
					sunk != want {
					t.Errorf("frame %d: type %d with %d bytes, %d sunk, %v", i, kind, len(p), sunk, err)
				}
			}
			if _, _, err := r.NextTo(Stdin, sink); err != io.ErrUnexpectedEOF {
				t.Errorf("a frame cut short gives %v", err)
			}
		})
	}
}

// TestNextPiece reads data in pieces as it arrives, and the other frames between the data whole.
func TestNextPiece(t *testing.T) {
	var stream bytes.Buffer
	for _, p := range []string{"first", "", "second"} {
		Write(&stream, Stdin, []byte(p))
		Write(&stream, Signal, []byte{9})
	}
	stream.Truncate(stream.Len() - Header - 3) // ends inside the last data
	data := bytes.NewReader(stream.Bytes())
	for name, src := range map[string]io.Reader{"plain": iotest.OneByteReader(data), "lending": lending{data}} {
		t.Run(name, func(t *testing.T) {
			data.Seek(0, io.SeekStart)
			r := NewReader(src)
			var got []byte
			for {
				kind, p, err := r.NextPiece(Stdin)
				if err != nil {
					if err != io.ErrUnexpectedEOF || string(got) != "first||seco" {
						t.Errorf("%q and then %v", got, err)
					}
					return
				}
				if kind == Signal {
					p = []byte("|")
				} else if len(p) == 0 {
					t.Error("an empty piece")
				}
				got = append(got, p...)
			}
		})
	}
}

// TestAFrameOnTheWire fixes the format, which agents of other versions use.
func TestAFrameOnTheWire(t *testing.T) {
	var stream bytes.Buffer
	if err := WriteJSON(&stream, Size, Resize{Rows: 24, Cols: 80}); err != nil {
		t.Fatal(err)
	}
	if want := "\x04\x00\x00\x00\x00\x00\x00\x15" + `{"rows":24,"cols":80}`; stream.String() != want {
		t.Errorf("it is %q, not %q", stream.String(), want)
	}
}

// countingWriter counts calls of Write.
type countingWriter int

func (c *countingWriter) Write(p []byte) (int, error) {
	*c++
	return len(p), nil
}

// TestAFrameIsOneWrite, because several goroutines share a stream.
func TestAFrameIsOneWrite(t *testing.T) {
	for size, want := range map[int]countingWriter{0: 1, 1: 1, Max: 1, Max + 1: 0} {
		var calls countingWriter
		err := Write(&calls, Stdout, make([]byte, size))
		if calls != want || (err == nil) != (want == 1) {
			t.Errorf("%d bytes took %d writes, %v", size, calls, err)
		}
	}
}

func TestWhatJSONCannotSayIsAnError(t *testing.T) {
	var calls countingWriter
	if err := WriteJSON(&calls, Request, make(chan int)); err == nil || calls != 0 {
		t.Errorf("%d writes, %v", calls, err)
	}
}

func TestHostileFrames(t *testing.T) {
	header := func(n uint32, payload int) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, n), make([]byte, payload)...)
	}
	guest := banger.Errorf(banger.CodeGuest, "")
	for name, c := range map[string]struct {
		stream []byte
		want   error
	}{
		"nothing":                     {nil, io.EOF},
		"half a header":               {[]byte{8, 0, 0}, io.ErrUnexpectedEOF},
		"header without its payload":  {header(1, 0), io.ErrUnexpectedEOF},
		"half a payload":              {header(10, 5), io.ErrUnexpectedEOF},
		"a reserved byte that is set": {[]byte{8, 0, 1, 0, 0, 0, 0, 0}, guest},
		"one byte too many":           {header(Max+1, 0), guest},
		"2 GiB":                       {header(1<<31, 0), guest},
		"4 GiB":                       {header(1<<32-1, 0), guest},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewReader(bytes.NewReader(c.stream))
			_, _, err := r.Next()
			if c.want == error(guest) {
				if banger.CodeOf(err) != banger.CodeGuest || cap(r.buf) != 0 {
					t.Errorf("the error is %v, with %d bytes held", err, cap(r.buf))
				}
			} else if !errors.Is(err, c.want) {
				t.Errorf("the error is %v, not %v", err, c.want)
			}
		})
	}
}

// FuzzFrameReader reads the bytes of a hostile peer. No frame may exceed the limit, and writing the frames again must
// give the bytes that were read.
func FuzzFrameReader(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{8, 0, 0, 0, 0, 0, 0, 1, 'x', 3, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 'x'})
	f.Add([]byte{8, 0, 0, 0, 0, 0x10, 0, 0})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := NewReader(bytes.NewReader(stream))
		var again bytes.Buffer
		for {
			kind, p, err := r.Next()
			if err != nil {
				if err == io.EOF && again.Len() != len(stream) {
					t.Errorf("a clean end behind %d of %d bytes", again.Len(), len(stream))
				}
				break
			}
			if err := Write(&again, kind, p); err != nil {
				t.Fatal(err)
			}
		}
		if cap(r.buf) > Max || !bytes.HasPrefix(stream, again.Bytes()) {
			t.Errorf("%d bytes held; read %q from %q", cap(r.buf), again.Bytes(), stream)
		}
	})
}
