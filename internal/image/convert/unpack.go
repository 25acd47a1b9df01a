package convert

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"banger/internal/contextio"
	"banger/internal/ext4"
	"banger/internal/image/layer"
)

// Opener returns the bytes of a layer's blob. The reader reports the end only if the bytes match the digest.
type Opener func(context.Context, layer.Descriptor) (io.ReadCloser, error)

// unpackAll decodes all layers at the same time. It writes the contents of files to w, and returns the entries of each
// layer.
func unpackAll(ctx context.Context, w *ext4.Writer, layers []layer.Descriptor, o Options) ([][]record, error) {
	lists := make([][]record, len(layers))
	left := &budget{Limits: o.Limits}
	areas := w.Areas(max(len(layers), 1))
	err := layer.Each(ctx, layers, o.Emit, func(ctx context.Context, i int, m *layer.Meter) (err error) {
		defer func() { err = errors.Join(err, areas[i].Close()) }()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		lists[i], err = unpack(ctx, o.Open, layers[i], areas[i], left, m)
		return err
	})
	return lists, err
}

// unpack decodes one layer, hashes all of its plain bytes, including those after the end of the tar, and returns its
// entries.
func unpack(ctx context.Context, open Opener, l layer.Descriptor, area *ext4.Area, limits *budget,
	m *layer.Meter) (list []record, err error) {
	blob, err := open(ctx, l)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	in := bufio.NewReaderSize(contextio.NewReader(ctx, m.Reader(blob)), 256<<10)
	decoder, free, err := layer.Decompress(in)
	if err != nil {
		return nil, err
	}
	defer free()
	plain := layer.NewHashReader(&ratioReader{r: decoder, stored: m, ratio: limits.Ratio})
	defer plain.Stop()
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
	if diffID := plain.Sum(); diffID != l.DiffID {
		return nil, fmt.Errorf("the content is %s, not %s as the config says", diffID, l.DiffID)
	}
	return list, nil
}

// ratioReader is a reader that returns an error for a layer whose plain size is too large for its compressed size.
type ratioReader struct {
	r      io.Reader
	stored *layer.Meter
	plain  int64
	ratio  int64
}

func (b *ratioReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.plain += int64(n)
	if stored := b.stored.Done(); b.plain > ratioFree && b.plain/b.ratio > stored {
		return n, fmt.Errorf("%d bytes of the blob have become %d, more than %d times as many", stored, b.plain, b.ratio)
	}
	return n, err
}

// readLayer reads a layer's tar to its end, writes the contents of files to area, and returns the entries in order.
func readLayer(ctx context.Context, r io.Reader, area *ext4.Area, limits *budget) ([]record, error) {
	var list []record
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the layer's tar: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		// The context is checked here too, because the holes of a sparse entry are read without reading r.
		rec, err := readEntry(h, contextio.NewReader(ctx, tr), area, limits)
		if err != nil {
			return nil, fmt.Errorf("entry %.200q: %w", h.Name, err)
		}
		if rec.name != "" {
			list = append(list, rec)
		}
	}
}
