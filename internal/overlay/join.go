package overlay

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"banger"
	"banger/internal/blob"
	"banger/internal/qcow2"
	"banger/internal/sparse"
	"banger/internal/untrusted"
)

// Join makes one file of a layer and those beneath it. The old file stays until the next Open, because VMs that start
// may be about to open it.
func (s *Store) Join(ctx context.Context, id string) error {
	l, err := s.Get(id)
	if err != nil || l.Parent == "" {
		return err
	}
	joined := l
	joined.Parent, joined.File = "", joinedFile
	if err := s.write(ctx, id, "", joined.file(s), 0o400); err != nil {
		return err
	}
	return errors.Join(blob.Sync(s.path(id)), blob.WriteJSON(filepath.Join(s.path(id), infoFile), joined),
		blob.Sync(s.path(id)))
}

// nextSuffix ends the name of a raw disk that is being made.
const nextSuffix = ".next"

// Flatten makes the disk of a VM without a VMM one raw file. The caller then stores that it has no Base.
func (s *Store) Flatten(ctx context.Context, vm banger.VM) error {
	if err := s.settle(vm); err != nil {
		return err
	}
	to := s.dirs.Disk(vm.ID, "")
	next := to + nextSuffix
	if err := s.write(ctx, vm.Base, s.dirs.Disk(vm.ID, vm.Base), next, 0o600); err != nil {
		return err
	}
	return errors.Join(os.Rename(next, to), blob.Sync(filepath.Dir(to)))
}

// Copy makes a layer of a copy of the disk of a VM without a VMM: by reference if the file system can do that. It is
// for VMMs that take no overlays.
func (s *Store) Copy(ctx context.Context, vm banger.VM) (id string, err error) {
	l := Layer{ID: banger.NewID(), VM: vm.ID, File: frozenFile}
	if l.Size, err = s.size(vm); err != nil {
		return "", err
	}
	if err := s.describe(l); err != nil {
		return "", err
	}
	top := s.dirs.Disk(vm.ID, vm.Base)
	if err := s.write(ctx, vm.Base, top, l.file(s), 0o400); err != nil {
		return "", errors.Join(err, untrusted.RemoveAll(s.path(l.ID)))
	}
	return l.ID, blob.Sync(s.path(l.ID))
}

// Unfold makes a raw file at path of a layer, for the disk of a VM whose VMM takes no overlays.
func (s *Store) Unfold(ctx context.Context, layer, path string) error {
	return errors.Join(s.write(ctx, layer, "", path, 0o600), blob.Sync(filepath.Dir(path)))
}

// Content returns how many bytes of the host's disk a copy of a layer takes at most, where the file system cannot
// copy by reference.
func (s *Store) Content(layer string) (n int64, err error) {
	chain, err := s.chain(layer)
	for _, l := range chain {
		info, serr := os.Stat(l.file(s))
		if serr != nil {
			return n, serr
		}
		n += sparse.Allocated(info)
	}
	return n, err
}

// Prepare makes a raw file of a layer beside the disk of a VM whose VMM takes no overlays. Place makes it the disk.
func (s *Store) Prepare(ctx context.Context, vm, layer string) error {
	return s.Unfold(ctx, layer, s.dirs.Disk(vm, "")+nextSuffix)
}

// Place makes the file of Prepare the disk of a VM without a VMM. It may be called again.
func (s *Store) Place(vm string) error {
	to := s.dirs.Disk(vm, "")
	if err := os.Rename(to+nextSuffix, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return blob.Sync(filepath.Dir(to))
}

// write writes what a disk on a layer has to a new raw file, durably. top is the overlay of the disk, or its only
// file if layer is "", or "" for what the layer itself has.
func (s *Store) write(ctx context.Context, layer, top, path string, mode os.FileMode) (err error) {
	open := &opened{}
	defer open.close()
	chain, err := s.chain(layer)
	if err != nil {
		return err
	}
	for i := len(chain) - 1; i >= 0; i-- {
		if err := open.add(chain[i].file(s), chain[i].Size); err != nil {
			return err
		}
	}
	if top != "" {
		size := int64(0)
		if len(chain) > 0 {
			size = chain[0].Size
		}
		if err := open.add(top, size); err != nil {
			return err
		}
	}
	to, err := untrusted.Create(path, mode)
	if err != nil {
		return err
	}
	if err = open.copyTo(ctx, to); err == nil {
		err = to.Sync()
	}
	if err = errors.Join(err, to.Close()); err != nil {
		os.Remove(path)
	}
	return err
}

// opened is a chain of open files, the lowest first.
type opened struct {
	files []*os.File
	top   *qcow2.Overlay // nil of a raw file alone
}

// add opens the next file. The first one is raw, the others are overlays of a disk of size bytes.
func (o *opened) add(path string, size int64) error {
	f, err := untrusted.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	o.files = append(o.files, f)
	var below io.ReaderAt = qcow2.Raw{File: o.files[0]}
	switch {
	case len(o.files) == 1:
		return nil
	case o.top != nil:
		below = o.top
	}
	o.top, err = qcow2.Open(f, size, below)
	return err
}

func (o *opened) close() {
	for _, f := range o.files {
		f.Close()
	}
}

// copyTo writes the disk to an empty file, with holes where it has none but zeros.
func (o *opened) copyTo(ctx context.Context, to *os.File) error {
	if o.top == nil {
		return sparse.Copy(ctx, to, o.files[0])
	}
	if err := to.Truncate(o.top.Size()); err != nil {
		return err
	}
	return o.top.Data(func(p []byte, at int64) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return sparse.Write(to, p, at)
	})
}
