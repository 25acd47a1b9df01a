package image

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"

	"banger/internal/ext4"
	"banger/internal/inflate"
)

// maxDecoderWindow is the most memory that a zstd layer may ask for, in bytes.
const maxDecoderWindow = 128 << 20

// opener returns the bytes of a layer's blob. The reader reports the end only if the bytes match the digest.
type opener func(context.Context, layer) (io.ReadCloser, error)

// unpackLayer decodes one layer, hashes all of its plain bytes, including those after the end of
// the tar, and returns its entries.
func unpackLayer(ctx context.Context, open opener, l layer, area *ext4.Area, limits *budget,
	m *meter) (list []record, err error) {
	blob, err := open(ctx, l)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	m.reader = blob
	in := bufio.NewReaderSize(&contextReader{ctx, m}, 256<<10)
	decoder, closeDecoder, err := decompress(in)
	if err != nil {
		return nil, err
	}
	defer closeDecoder()
	plain := newHashing(&ratioReader{r: decoder, stored: m, ratio: limits.Ratio})
	defer plain.stop()
	list, err = readLayer(ctx, plain, area, limits)
	if err == nil {
		_, err = io.Copy(io.Discard, plain)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, in)
	}
	if err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	if diffID := plain.sum(); diffID != l.diffID {
		return nil, rule("the content is %s, not %s as the config says", diffID, l.diffID)
	}
	return list, nil
}

// decompress recognises gzip, zstd and plain tar by their first bytes. Registries sometimes
// mislabel layers, and the diffID is checked in any case.
func decompress(in *bufio.Reader) (io.Reader, func(), error) {
	head, err := in.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	switch {
	case isGzip(head):
		z := inflate.NewReader(in)
		return z, func() { z.Close() }, nil
	case isZstd(head): // its own checksum would be a third check after the digest and the diffID
		r, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxDecoderWindow),
			zstd.IgnoreChecksum(true))
		if err != nil {
			return nil, nil, err
		}
		return r, r.Close, nil
	}
	return in, func() {}, nil
}

func isGzip(head []byte) bool { return bytes.HasPrefix(head, []byte{0x1f, 0x8b}) }

// isZstd reports whether head starts a zstd frame, or a skippable frame (RFC 8878).
func isZstd(head []byte) bool {
	return bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}) || len(head) == 4 && head[0]&0xf0 == 0x50 &&
		bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18})
}

// ratioReader is a reader that returns an error for a layer whose plain size is too large for its compressed size.
type ratioReader struct {
	r      io.Reader
	stored *meter
	plain  int64
	ratio  int64
}

func (b *ratioReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.plain += int64(n)
	if stored := b.stored.done.Load(); b.plain > ratioFree && b.plain/b.ratio > stored {
		return n, rule("%d bytes of the blob have become %d, more than %d times as many", stored, b.plain, b.ratio)
	}
	return n, err
}

// hashing hashes what is read through it, on its own goroutine.
type hashing struct {
	r    io.Reader
	buf  []byte
	full chan []byte
	free chan []byte
	done chan struct{}
	hash hash.Hash
}

const hashBuffer = 256 << 10

func newHashing(r io.Reader) *hashing {
	h := &hashing{r: r, buf: make([]byte, 0, hashBuffer), full: make(chan []byte, 1), free: make(chan []byte, 2),
		done: make(chan struct{}), hash: sha256.New()}
	h.free <- make([]byte, 0, hashBuffer)
	go func() { // ends at stop
		defer close(h.done)
		for p := range h.full {
			h.hash.Write(p)
			h.free <- p[:0]
		}
	}()
	return h
}

func (h *hashing) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	for p = p[:n]; len(p) > 0; {
		room := h.buf[len(h.buf):cap(h.buf)]
		k := copy(room, p)
		h.buf, p = h.buf[:len(h.buf)+k], p[k:]
		if len(h.buf) == cap(h.buf) {
			h.full <- h.buf
			h.buf = <-h.free
		}
	}
	return n, err
}

// stop ends the goroutine. It may be called twice.
func (h *hashing) stop() {
	if h.full != nil {
		close(h.full)
		<-h.done
		h.full = nil
	}
}

// sum stops the hashing and returns the digest of all that was read.
func (h *hashing) sum() string {
	h.full <- h.buf
	h.stop()
	return digestOf(h.hash)
}

func digestOf(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

func digestBytes(p []byte) string {
	sum := sha256.Sum256(p)
	return "sha256:" + hex.EncodeToString(sum[:])
}
