package pax

import "io"

// chunkReader is a reader that can lend its own buffer until the next call.
type chunkReader interface {
	ReadChunk(max int) ([]byte, error)
}

// readSize is the size in bytes of reads from a reader that lends no buffer.
const readSize = 128 << 10

// input reads the bytes of a reader in the pieces in which they come. A file's data is then written from the
// buffer in which it was received.
type input struct {
	r     io.Reader
	chunk chunkReader // nil if r lends no buffer
	buf   []byte
	cur   []byte
}

func newInput(r io.Reader) *input {
	in := &input{r: r}
	if c, ok := r.(chunkReader); ok {
		in.chunk = c
	} else {
		in.buf = make([]byte, readSize)
	}
	return in
}

// some returns at least one and at most max bytes. They are valid until the next call.
func (in *input) some(max int64) ([]byte, error) {
	for len(in.cur) == 0 {
		var err error
		if in.chunk != nil {
			in.cur, err = in.chunk.ReadChunk(maxChunk)
		} else {
			var n int
			n, err = in.r.Read(in.buf)
			in.cur = in.buf[:n]
		}
		if len(in.cur) == 0 && err != nil {
			return nil, err
		}
	}
	n := min(max, int64(len(in.cur)))
	p := in.cur[:n]
	in.cur = in.cur[n:]
	return p, nil
}

// maxChunk is larger than any chunk.
const maxChunk = 1 << 20

// full fills p. It returns io.ErrUnexpectedEOF if the stream ends within p, and io.EOF if it ends before p.
func (in *input) full(p []byte) error {
	for done := 0; done < len(p); {
		b, err := in.some(int64(len(p) - done))
		if err == io.EOF && done > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		done += copy(p[done:], b)
	}
	return nil
}

// pass passes the next n bytes to w.
func (in *input) pass(n int64, w func([]byte) error) error {
	for n > 0 {
		b, err := in.some(n)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			err = w(b)
		}
		if err != nil {
			return err
		}
		n -= int64(len(b))
	}
	return nil
}

// drain reads to the end. It returns an error if that does not come within limit bytes.
func (in *input) drain(limit int64) error {
	for limit >= 0 {
		b, err := in.some(maxChunk)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		limit -= int64(len(b))
	}
	return Damaged("it continues after its end")
}

// drop ignores bytes.
func drop([]byte) error { return nil }
