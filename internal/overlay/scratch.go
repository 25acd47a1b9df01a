package overlay

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"banger"
	"banger/internal/qcow2"
	"banger/internal/untrusted"
	"banger/internal/vmm"
)

// Scratch makes an empty overlay on a layer at path, which the caller removes. It returns the disk as a VMM gets it,
// which can be written to without a change of the layer. A VMM that takes no overlays, or not so many, gets a copy.
func (s *Store) Scratch(ctx context.Context, layer, serial, path string, overlays bool) (vmm.Drive, error) {
	d := vmm.Drive{Serial: serial, Path: path}
	chain, err := s.chain(layer)
	if err != nil {
		return d, err
	}
	if !overlays || len(chain) > MaxDepth {
		return d, s.Unfold(ctx, layer, path)
	}
	d.Base = s.files(chain)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return d, err
	}
	err = errors.Join(qcow2.Create(f, chain[0].Size), f.Close())
	return d, err
}

// Untouched reports whether the disk of a VM without a VMM has nothing that its layer does not have.
func (s *Store) Untouched(vm banger.VM) bool {
	if vm.Base == "" || !s.IsFrozen(vm.Base) {
		return false
	}
	l, err := s.Get(vm.Base)
	if err != nil {
		return false
	}
	f, err := untrusted.Open(s.dirs.Disk(vm.ID, vm.Base), os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	same, err := qcow2.Untouched(f, l.Size)
	return same && err == nil
}

// Foreign returns the uppermost of the layers from id downwards that is not of the disk of the VM vm, or
// fs.ErrNotExist. A fork has it of its source.
func (s *Store) Foreign(id, vm string) (Layer, error) {
	chain, err := s.chain(id)
	for _, l := range chain {
		if l.VM != vm {
			return l, nil
		}
	}
	return Layer{}, errors.Join(err, fs.ErrNotExist)
}
