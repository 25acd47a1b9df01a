package filecopy

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"banger"
)

// maxWindow is the largest window of zstd that is accepted, in bytes. A larger one takes as much memory.
const maxWindow = 128 << 20

// Sizes of what tells a tar from what is compressed. A tar of POSIX or GNU has its magic in the first block (pax(1)).
const (
	firstBlock = 512
	magicAt    = 257
)

// compressions are what docker cp accepts too, by their first bytes.
var compressions = []struct {
	magic string
	open  func(io.Reader) (io.Reader, error)
}{
	{"\x1f\x8b", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }}, // RFC 1952
	{"BZh", func(r io.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil }},
	{"\xfd7zXZ\x00", func(r io.Reader) (io.Reader, error) { return xz.NewReader(r) }},
	{"\x28\xb5\x2f\xfd", func(r io.Reader) (io.Reader, error) { // RFC 8878
		return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	}},
}

// plainTar returns the tar that r has, which may be compressed.
func plainTar(r io.Reader) (io.Reader, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	first, _ := in.Peek(firstBlock) // a read that fails fails again
	if len(first) == firstBlock && bytes.HasPrefix(first[magicAt:], []byte("ustar")) {
		return in, nil
	}
	for _, c := range compressions {
		if bytes.HasPrefix(first, []byte(c.magic)) {
			plain, err := c.open(in)
			if err != nil {
				return nil, damaged()
			}
			return expanded{plain}, nil
		}
	}
	return in, nil
}

// expanded is a compressed stream, whose errors are in our words.
type expanded struct{ io.Reader }

func (e expanded) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = damaged()
	}
	return n, err
}

// damaged leaves out what the libraries say, which tells a user no more.
func damaged() error {
	return banger.Errorf(banger.CodeInvalid, "the compressed tar on stdin is damaged or incomplete").
		WithHint("check it: tar tf FILE")
}
