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

// rootfsSize is the size of every rootfs in bytes, and the limit for an image. The layout must be fixed before the
// content is known. The file is sparse and no guest writes to it, so a large size costs only group descriptors.
const rootfsSize = 64 << 30

// layersAtOnce is how many layers are fetched and decoded at the same time. It also bounds memory,
// about 4 MiB for each. A layer never starts before an older one, which it may have to wait for.
const layersAtOnce = 8

// work is the making of one image, with its figures.
type work struct {
	store *Store
	src   *source
	emit  banger.Emit

	shared  string // the image whose rootfs is shared; "" if the rootfs was built
	fetched atomic.Int64
	decode  time.Duration
	write   time.Duration
}

// rootfs makes the ext4 file of an image at path, or shares the file of another image with the same
// config. It completes img.
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

// sameRootfs returns an image with the same rootfs as img would have, or nil.
func (s *Store) sameRootfs(img *banger.Image) (*banger.Image, error) {
	all, err := s.all()
	for _, other := range all {
		if other.ConfigDigest == img.ConfigDigest && other.Converter == img.Converter {
			return &other, err
		}
	}
	return nil, err
}

// fetchAll fetches all layers without decoding them.
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

// open is the opener for the source's layers. It reads from the blob store, which fetches blobs
// that it does not have.
func (w *work) open(ctx context.Context, l layer) (io.ReadCloser, error) {
	r, err := w.store.blobs.Open(ctx, blobSource(w.src.content, l.digest, l.size))
	if err != nil {
		return nil, err
	}
	return &fetching{r, &w.fetched}, nil
}

// fetching is a reader that adds the number of fetched bytes to a sum when it is closed.
type fetching struct {
	*blob.Reader
	sum *atomic.Int64
}

func (f *fetching) Close() error {
	_, fetched := f.Progress()
	f.sum.Add(fetched)
	return f.Reader.Close()
}

// report returns what was done, as a text for a person.
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

// build makes one ext4 file from all layers. All layers are decoded at the same time, and their
// contents are written as they come. The tree is written last.
func (w *work) build(ctx context.Context, path string, img *banger.Image) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(0o644); err != nil { // VMs that run as their own users read the file, whatever the umask is
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

// assemble decodes all layers of src into f and returns their tree. The caller then finishes the
// writer of the tree. The same source always gives the same bytes.
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

// layerError adds to err which layer it is about, counted from 1.
func layerError(i int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("layer %d: %w", i+1, err)
}

// hostFile is a sparse file on the host.
type hostFile struct{ *os.File }

// writeBackFrom is the size in bytes from which a write is sent to the disk at once.
const writeBackFrom = 128 << 10

func (f hostFile) WriteAt(p []byte, offset int64) (int, error) {
	n, err := f.File.WriteAt(p, offset)
	if n >= writeBackFrom {
		blob.WriteBack(f.File, offset, int64(n))
	}
	return n, err
}

// PunchHole frees a range of the file if the host's file system can.
func (f hostFile) PunchHole(offset, length int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// allocated returns how many bytes a file occupies on the host.
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
