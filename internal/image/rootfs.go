package image

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"banger"
	"banger/internal/blob"
	"banger/internal/image/convert"
	"banger/internal/image/layer"
	"banger/internal/image/source"
)

// work is the making of one image, with its figures.
type work struct {
	store *Store
	src   *source.Image
	emit  banger.Emit

	shared  string // the image whose rootfs is shared; "" if the rootfs was built
	fetched atomic.Int64
	result  convert.Result
}

// rootfs makes the ext4 file of an image at path, or shares the file of another image with the same
// config. It completes img.
func (w *work) rootfs(ctx context.Context, path string, img *banger.Image) error {
	same, err := w.store.images.sameRootfs(img)
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

// build makes the ext4 file of an image at path. It completes img.
func (w *work) build(ctx context.Context, path string, img *banger.Image) (err error) {
	w.result, err = convert.Rootfs(ctx, path, w.src.Layers, convert.Options{
		Name:   img.Reference,
		Seed:   w.src.ConfigDigest,
		Open:   w.open,
		Limits: w.store.limits,
		Emit:   w.emit,
	})
	if err == nil {
		img.Size, img.Systemd = w.result.Size, w.result.Systemd
	}
	return err
}

// fetchAll fetches all layers without decoding them.
func (w *work) fetchAll(ctx context.Context) error {
	return layer.Each(ctx, w.src.Layers, w.emit, func(ctx context.Context, i int, m *layer.Meter) error {
		r, err := w.open(ctx, w.src.Layers[i])
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(io.Discard, m.Reader(r))
		return err
	})
}

// open opens a layer of the source. It reads from the blob store, which fetches blobs that it does not have.
func (w *work) open(ctx context.Context, l layer.Descriptor) (io.ReadCloser, error) {
	r, err := w.store.blobs.Open(ctx, w.src.Fetch(l))
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
	for _, l := range w.src.Layers {
		stored += l.Size
	}
	fetched := w.fetched.Load()
	s := fmt.Sprintf("%s: fetched %s, reused %s", name, banger.FormatSize(fetched),
		banger.FormatSize(max(stored-fetched, 0)))
	if w.shared != "" {
		return s + ", the file system is shared with " + w.shared
	}
	return s + fmt.Sprintf(", wrote %s (decoding %.1f s, file system %.1f s)",
		banger.FormatSize(img.Size), w.result.Decoding.Seconds(), w.result.Writing.Seconds())
}
