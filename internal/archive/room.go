package archive

import (
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/archive/pax"
)

// Limits of an archive that comes from a VM.
const (
	maxEntries = 10_000_000
	maxTail    = 1 << 20 // bytes after the end of the archive

	// Space that must stay free on the file system: a twentieth of it, but at most this.
	keptPart   = 20
	keptBytes  = 1 << 30
	keptInodes = 64 << 10

	// The free space is checked whenever this many bytes were written. A smaller copy therefore also succeeds on a
	// fuller file system.
	roomStep    = 16 << 20
	entryWeight = 4096 // bytes that each entry counts, whatever is in it
)

// room counts what an extraction has written, to keep some space of the file system free.
type room struct {
	entries int64
	written int64                                 // since the last check
	statfs  func(fd int, st *unix.Statfs_t) error // of the system
}

// weighEntry counts an entry before it is written.
func (x *extractor) weighEntry(h *pax.Header) error {
	if x.opts.Unbounded {
		return nil
	}
	if x.room.entries++; x.room.entries > maxEntries {
		return banger.Errorf(banger.CodeInvalid, "the archive has more than %d entries", maxEntries).
			WithHint("copy parts of the tree")
	}
	weight := int64(entryWeight)
	for _, value := range h.Xattrs {
		weight += int64(len(value))
	}
	return x.weigh(weight)
}

// weigh counts n bytes before they are written. It returns an error if the file system would have too little space.
func (x *extractor) weigh(n int64) error {
	if x.opts.Unbounded {
		return nil
	}
	if x.room.written += n; x.room.written < roomStep {
		return nil
	}
	x.room.written = 0
	var st unix.Statfs_t
	fd := x.dir // a file system that is mounted within the tree has its own space
	if fd < 0 {
		fd = x.root
	}
	if err := x.room.statfs(fd, &st); err != nil {
		return err
	}
	size, free := int64(st.Blocks)*st.Bsize, int64(st.Bavail)*st.Bsize
	if kept := min(size/keptPart, keptBytes); size > 0 && free < kept {
		return banger.Errorf(banger.CodeNoSpace, "the copy stops because it would leave less than %s on the file system",
			banger.FormatSize(kept)).WithHint("make room there, or copy less")
	}
	if kept := min(st.Files/keptPart, keptInodes); st.Files > 0 && st.Ffree < kept {
		return banger.Errorf(banger.CodeNoSpace,
			"the copy stops because it would leave fewer than %d files free on the file system", kept).
			WithHint("make room there, or copy less")
	}
	return nil
}
