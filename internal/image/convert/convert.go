// Package convert makes one ext4 root file system of the layers of an image. It decodes all layers at once while it
// checks every digest, applies them in order to a tree in memory, and writes the tree last.
//
// No path of an image is ever opened on the host: names are keys in memory and bytes in directory blocks. The package
// must not know where layers come from, nor where the result is kept.
package convert

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/blob"
	"banger/internal/ext4"
	"banger/internal/image/layer"
	"banger/internal/sparse"
)

// Version is part of a root file system's identity. It changes when the same layers become other bytes.
const Version = 2

// rootfsSize is the size of every root file system in bytes, and the limit for an image. The layout must be fixed
// before the content is known. The file is sparse and no guest writes to it, so a large size costs only group
// descriptors.
const rootfsSize = 64 << 30

// Options say how layers are converted.
type Options struct {
	Name   string // of the image, for a person
	Seed   string // decides the UUID of the file system; the digest of the image's config
	Open   Opener
	Limits Limits
	Emit   banger.Emit
}

// Result describes a root file system.
type Result struct {
	Size     int64         // bytes that it occupies on the host
	Systemd  bool          // its /sbin/init is systemd
	Decoding time.Duration // time until all layers were decoded
	Writing  time.Duration // time until the tree was written as well
}

// Rootfs makes a new ext4 file of all layers at path, durably. The same layers and seed always become the same bytes.
// If it fails, the caller removes the file.
func Rootfs(ctx context.Context, path string, layers []layer.Descriptor, o Options) (Result, error) {
	o.Limits = o.Limits.WithDefaults()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	if err := f.Chmod(0o644); err != nil { // VMs that run as their own users read the file, whatever the umask is
		return Result{}, err
	}
	started := time.Now()
	t, err := assemble(ctx, hostFile{f}, layers, o)
	if err != nil {
		return Result{}, err
	}
	r := Result{Decoding: time.Since(started)}
	o.Emit(banger.Event{Stage: "rootfs", Text: "writing the file system of " + o.Name})
	if err := t.w.Finish(t.root); err != nil {
		return r, err
	}
	r.Systemd = t.usesSystemd()
	if err := f.Sync(); err != nil {
		return r, err
	}
	r.Writing = time.Since(started) - r.Decoding
	info, err := f.Stat()
	if err != nil {
		return r, err
	}
	r.Size = sparse.Allocated(info)
	return r, nil
}

// assemble decodes all layers into f and returns their tree. The caller then finishes the writer of the tree.
func assemble(ctx context.Context, f ext4.File, layers []layer.Descriptor, o Options) (*tree, error) {
	opts := ext4.Options{Size: rootfsSize, Inodes: uint32(o.Limits.Entries), Label: "rootfs"}
	seed := sha256.Sum256([]byte(o.Seed))
	copy(opts.UUID[:], seed[:])
	copy(opts.HashSeed[:], seed[16:])
	w, err := ext4.New(f, opts)
	if err != nil {
		return nil, err
	}
	lists, err := unpackAll(ctx, w, layers, o)
	if err != nil {
		return nil, err
	}
	t := newTree(w)
	for i, records := range lists {
		if err := t.apply(records); err != nil {
			return nil, layer.Numbered(i, err)
		}
		lists[i] = nil
	}
	return t, nil
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
