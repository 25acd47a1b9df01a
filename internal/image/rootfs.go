package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/blob"
	"banger/internal/ext4"
)

// rootfsSize is the size of every rootfs in bytes. The layout must be known
// before the content is, and the file is sparse and never written to in a guest,
// so a generous size costs nothing but descriptors; it is what bounds an image.
const rootfsSize = 64 << 30

// layersAtOnce is how many layers are fetched and decoded at the same time, which
// bounds memory too: each takes some 4 MiB. A newer one never starts before an
// older, which it may have to wait for.
const layersAtOnce = 8

// work is the making of one image, and what it took.
type work struct {
	store *Store
	src   *source
	emit  banger.Emit

	shared  string // the image whose rootfs this one shares; "" when it was built
	fetched atomic.Int64
	decode  time.Duration
	write   time.Duration
}

// rootfs makes the ext4 file of an image at path, or shares that of another image
// with the same config, and completes img.
func (w *work) rootfs(ctx context.Context, path string, img *banger.Image) error {
	same, err := w.store.sameRootfs(img)
	if err != nil {
		return err
	}
	if same == nil {
		return w.build(ctx, path, img)
	}
	if err := w.fetchAll(ctx); err != nil {
		return err
	}
	w.shared = same.Digest
	img.Size, img.Systemd = same.Size, same.Systemd
	return os.Link(w.store.RootfsPath(same.Digest), path)
}

// sameRootfs returns an image whose rootfs is what img's would be, or nil.
func (s *Store) sameRootfs(img *banger.Image) (*banger.Image, error) {
	all, err := s.all()
	for _, other := range all {
		if other.ConfigDigest == img.ConfigDigest && other.Converter == img.Converter {
			return &other, err
		}
	}
	return nil, err
}

// fetchAll brings all layers in without decoding them.
func (w *work) fetchAll(ctx context.Context) error {
	all := newTotal(w.src.layers, w.emit)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(layersAtOnce)
	for i, l := range w.src.layers {
		group.Go(func() error {
			r, err := w.open(ctx, l)
			if err != nil {
				return layerError(i, err)
			}
			defer r.Close()
			m := all.meter(i, l)
			m.reader = r
			if _, err = io.Copy(io.Discard, m); err == nil {
				m.finish()
			}
			return layerError(i, err)
		})
	}
	return group.Wait()
}

// open is the opener of the source's layers: from the blob store, which fetches
// what it does not have.
func (w *work) open(ctx context.Context, l layer) (io.ReadCloser, error) {
	r, err := w.store.blobs.Open(ctx, blobSource(w.src.content, l.digest, l.size))
	if err != nil {
		return nil, err
	}
	return &fetching{r, &w.fetched}, nil
}

// fetching adds what travelled for a reader to a sum when it is closed.
type fetching struct {
	*blob.Reader
	sum *atomic.Int64
}

func (f *fetching) Close() error {
	_, fetched := f.Progress()
	f.sum.Add(fetched)
	return f.Reader.Close()
}

// report says what was done, for a person.
func (w *work) report(name string, img banger.Image) string {
	var stored int64
	for _, l := range w.src.layers {
		stored += l.size
	}
	fetched := w.fetched.Load()
	s := fmt.Sprintf("%s: fetched %s, reused %s", name, banger.FormatSize(fetched),
		banger.FormatSize(max(stored-fetched, 0)))
	if w.shared != "" {
		return s + ", the file system is shared with " + w.shared
	}
	return s + fmt.Sprintf(", wrote %s (decoding %.1f s, file system %.1f s)",
		banger.FormatSize(img.Size), w.decode.Seconds(), w.write.Seconds())
}

// build makes one ext4 file of all layers: their contents are written as they
// are decoded, all layers at once; the tree is known and written last.
func (w *work) build(ctx context.Context, path string, img *banger.Image) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(0o644); err != nil { // VMs with users of their own read it, whatever the umask
		return err
	}
	started := time.Now()
	t, err := assemble(ctx, hostFile{f}, w.src, w.open, w.store.limits, w.emit)
	if err != nil {
		return err
	}
	w.decode = time.Since(started)
	w.emit(banger.Event{Stage: "rootfs", Text: "writing the file system of " + img.Reference})
	if err := t.w.Finish(t.root); err != nil {
		return err
	}
	img.Systemd = t.usesSystemd()
	if err := f.Sync(); err != nil {
		return err
	}
	w.write = time.Since(started) - w.decode
	img.Size, err = allocated(f)
	return err
}

// assemble decodes all layers of src into f and returns the tree that they are. What
// is left to do is the tree's w.Finish. The same source gives the same bytes.
func assemble(ctx context.Context, f ext4.File, src *source, open opener, limits Limits,
	emit banger.Emit) (*tree, error) {
	opts := ext4.Options{Size: rootfsSize, Inodes: uint32(limits.Entries), Label: "rootfs"}
	seed := sha256.Sum256([]byte(src.configDigest))
	copy(opts.UUID[:], seed[:])
	copy(opts.HashSeed[:], seed[16:])
	w, err := ext4.New(f, opts)
	if err != nil {
		return nil, err
	}
	lists, err := unpackLayers(ctx, w, src.layers, open, limits, emit)
	if err != nil {
		return nil, err
	}
	t := newTree(w)
	for i, records := range lists {
		if err := t.apply(records); err != nil {
			return nil, layerError(i, err)
		}
		lists[i] = nil
	}
	return t, nil
}

func unpackLayers(ctx context.Context, w *ext4.Writer, layers []layer, open opener, limits Limits,
	emit banger.Emit) ([][]record, error) {
	lists := make([][]record, len(layers))
	left := &budget{Limits: limits}
	all := newTotal(layers, emit)
	areas := w.Areas(max(len(layers), 1))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(layersAtOnce)
	for i, l := range layers {
		group.Go(func() (err error) {
			defer func() { err = errors.Join(err, areas[i].Close()) }()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			m := all.meter(i, l)
			if lists[i], err = unpackLayer(ctx, open, l, areas[i], left, m); err == nil {
				m.finish()
			}
			return layerError(i, err)
		})
	}
	return lists, group.Wait()
}

// layerError says which layer, counted from 1, err is about.
func layerError(i int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("layer %d: %w", i+1, err)
}

// hostFile is a sparse file of the host.
type hostFile struct{ *os.File }

// writeBackFrom is how long a write is, in bytes, that is sent on its way at once.
const writeBackFrom = 128 << 10

func (f hostFile) WriteAt(p []byte, offset int64) (int, error) {
	n, err := f.File.WriteAt(p, offset)
	if n >= writeBackFrom {
		blob.WriteBack(f.File, offset, int64(n))
	}
	return n, err
}

// PunchHole gives a range back to the host where its file system can.
func (f hostFile) PunchHole(offset, length int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
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
