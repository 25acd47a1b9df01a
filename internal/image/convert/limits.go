package convert

import (
	"archive/tar"
	"fmt"
	"sync/atomic"

	"banger"
)

// Limits bound what one image may make us keep and write. A field of 0 means its default.
type Limits struct {
	Bytes   int64 // of all files, including holes and files that a later layer hides; at most the default, 64 GiB
	Entries int64 // of all layers together; default 2^20, which with one attribute each take 350 MiB of memory
	Ratio   int64 // of a layer's plain bytes to its compressed bytes; default 1000, checked above ratioFree
}

const (
	maxPath      = 4096
	maxNameBytes = 256 << 20
	ratioFree    = 1 << 30 // plain bytes of a layer that may have any ratio, for holes in dense tars
)

// WithDefaults returns l with the defaults in place of zeros.
func (l Limits) WithDefaults() Limits {
	if l.Bytes <= 0 || l.Bytes > rootfsSize {
		l.Bytes = rootfsSize
	}
	if l.Entries <= 0 {
		l.Entries = 1 << 20
	}
	if l.Ratio <= 0 {
		l.Ratio = 1000
	}
	return l
}

// budget is what is left of the limits for all layers of one image. The layers are read at the same time.
type budget struct {
	Limits
	bytes, entries, nameBytes atomic.Int64
}

// take counts one entry, before any of it is kept.
func (b *budget) take(h *tar.Header) error {
	if len(h.Name) > maxPath {
		return fmt.Errorf("its name has %d bytes, but at most %d are allowed", len(h.Name), maxPath)
	}
	names := int64(len(h.Name) + len(h.Linkname))
	for k, v := range h.PAXRecords {
		names += int64(len(k) + len(v))
	}
	if b.nameBytes.Add(names) > maxNameBytes {
		return fmt.Errorf("names and attributes of the image take more than %s", banger.FormatSize(maxNameBytes))
	}
	if b.entries.Add(1) > b.Entries {
		return fmt.Errorf("the image has more than %d entries", b.Entries)
	}
	if h.Size > b.Bytes || b.bytes.Add(h.Size) > b.Bytes {
		return fmt.Errorf("the files of the image take more than %s", banger.FormatSize(b.Bytes))
	}
	return nil
}
