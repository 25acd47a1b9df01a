package image

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"banger"
	"banger/internal/ext4"
)

// rootfsSize is the size of every rootfs in bytes. The layout must be known
// before the content is, and the file is sparse and never written to in a guest,
// so a generous size costs nothing but descriptors; it is what bounds an image.
const rootfsSize = 64 << 30

// maxDecoderWindow bounds the memory that a zstd layer may ask for.
const maxDecoderWindow = 128 << 20

// buildRootfs reads all layers, oldest first, into one ext4 file.
func (s *Store) buildRootfs(ctx context.Context, path string, src *source, img *banger.Image, emit banger.Emit) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	opts := ext4.Options{Size: rootfsSize, Inodes: maxEntries, Label: "rootfs"}
	seed := sha256.Sum256([]byte(src.digest))
	copy(opts.UUID[:], seed[:])
	copy(opts.HashSeed[:], seed[16:])
	w, err := ext4.New(f, opts)
	if err != nil {
		return err
	}
	t := newTree(w)
	meter := &meter{emit: emit}
	for _, l := range src.layers {
		meter.total += l.size
	}
	for i, l := range src.layers {
		meter.text = fmt.Sprintf("layer %d of %d", i+1, len(src.layers))
		diffID, err := applyLayer(ctx, t, l, meter)
		if err != nil {
			return fmt.Errorf("layer %d: %w", i+1, err)
		}
		img.Layers = append(img.Layers, diffID)
	}
	if src.digest == "" { // a recipe: named by what it made
		sum := sha256.Sum256([]byte(fmt.Sprint(img.Layers, src.config)))
		src.digest = "sha256:" + hex.EncodeToString(sum[:])
	}
	emit(banger.Event{Stage: "rootfs", Text: "writing the file system of " + img.Reference})
	if err := w.Finish(t.root); err != nil {
		return err
	}
	img.Systemd = t.usesSystemd()
	if err := f.Sync(); err != nil {
		return err
	}
	img.Size, err = allocated(f)
	return err
}

// applyLayer reads one layer and returns its diffID. Every byte is hashed, also
// those behind the end of the tar.
func applyLayer(ctx context.Context, t *tree, l layer, m *meter) (string, error) {
	blob, err := l.open(ctx)
	if err != nil {
		return "", err
	}
	defer blob.Close()
	defer context.AfterFunc(ctx, func() { blob.Close() })()
	m.reader = blob
	stored, plain := sha256.New(), sha256.New()
	in := bufio.NewReaderSize(&contextReader{ctx, io.TeeReader(m, stored)}, 256<<10)
	tarStream, closeDecoder, err := decompress(in)
	if err != nil {
		return "", err
	}
	defer closeDecoder()
	hashed := io.TeeReader(tarStream, plain)
	if err := t.apply(ctx, hashed); err != nil {
		return "", errors.Join(ctx.Err(), err)
	}
	for _, r := range []io.Reader{hashed, in} { // what follows the tar, and the compressed stream
		if _, err := io.Copy(io.Discard, r); err != nil {
			return "", errors.Join(ctx.Err(), err)
		}
	}
	if l.digest != "" && sum(stored) != l.digest {
		return "", fmt.Errorf("the blob is %s, not %s as the manifest says", sum(stored), l.digest)
	}
	if l.diffID != "" && sum(plain) != l.diffID {
		return "", fmt.Errorf("the content is %s, not %s as the config says", sum(plain), l.diffID)
	}
	return sum(plain), nil
}

func sum(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

// decompress recognises gzip, zstd and plain tar by their first bytes; registries
// are known to mislabel layers, and the diffID decides anyway.
func decompress(in *bufio.Reader) (io.Reader, func(), error) {
	head, err := in.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		r, err := gzip.NewReader(in)
		return r, func() {}, err
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(head) == 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18}):
		r, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxDecoderWindow))
		if err != nil {
			return nil, nil, err
		}
		return r, r.Close, nil
	}
	return in, func() {}, nil
}

// contextReader ends reading when the context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// meter counts what is read and tells it a few times a second.
type meter struct {
	reader io.Reader
	emit   banger.Emit
	text   string
	done   int64
	total  int64
	last   time.Time
}

const meterInterval = 200 * time.Millisecond

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.reader.Read(p)
	m.done += int64(n)
	if now := time.Now(); now.Sub(m.last) >= meterInterval {
		m.last = now
		m.emit(banger.Event{Stage: "pull", Text: m.text, Bytes: m.done, Total: m.total})
	}
	return n, err
}

// allocated returns the bytes that a file occupies on the host.
func allocated(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return info.Size(), nil
	}
	return st.Blocks * 512, nil
}
