// Package assembly makes the parts of a new VM: it gets the image and the kernel, and makes the disk and the host
// key. It must not know of rows, nor start anything.
package assembly

import (
	"context"
	"os"
	"slices"

	"banger"
	"banger/internal/disk"
	"banger/internal/launch"
	"banger/internal/library"
	"banger/internal/networks"
	"banger/internal/reserve"
	"banger/internal/resolve"
	"banger/internal/vmdir"
)

// Maker has what all VMs are made of. The caller owns its parts.
type Maker struct {
	Library *library.Library
	Dirs    vmdir.Dirs
	HostKey func(id string) (private, public string, err error)
}

// Make gets the image and the kernel of a new VM and makes its files. change writes the names of its parts into the
// VM. Image and kernel cannot be removed before release is called; after that, they stay while the VM names them.
func (m Maker) Make(ctx context.Context, vm banger.VM, emit banger.Emit) (change func(*banger.VM), release func(),
	err error) {
	watch := launch.NewStopwatch()
	img, kern, release, err := m.Library.Use(ctx, vm.Spec, "the creation of VM "+vm.Name, emit, watch.Lap)
	if err != nil {
		return nil, nil, err
	}
	if change, err = m.assemble(vm, img, kern, watch); err != nil {
		release()
		return nil, nil, err
	}
	return change, release, nil
}

// assemble makes the files of a new VM.
func (m Maker) assemble(vm banger.VM, img banger.Image, kern banger.Kernel, watch *launch.Stopwatch) (func(*banger.VM),
	error) {
	spec := vm.Spec
	main, err := resolve.Main(spec, img)
	if err != nil {
		return nil, err
	}
	if err := resolve.CheckImage(spec, img); err != nil {
		return nil, err
	}
	var more []banger.Forward
	if spec.PublishAll {
		if more, err = networks.Exposed(img, spec.Forwards); err != nil {
			return nil, err
		}
	}
	if err := m.makeDisk(vm.ID, spec.Disk); err != nil {
		return nil, err
	}
	_, hostKey, err := m.HostKey(vm.ID)
	if err != nil {
		return nil, err
	}
	// The contents of the disk and the key are durable. Their names must also be durable before the VM is visible.
	if err := m.Dirs.Sync(vm.ID); err != nil {
		return nil, reserve.Explain(err, m.Dirs.State)
	}
	watch.Lap("disk")
	return func(vm *banger.VM) {
		vm.ImageDigest, vm.Kernel, vm.Main, vm.Timings = img.Digest, kern.Name, main, watch.Timings
		vm.Spec.Init, vm.Spec.Forwards = resolve.Init(spec, img), append(slices.Clone(vm.Spec.Forwards), more...)
		vm.SSHHostKey, vm.Probe = hostKey, resolve.Probe(spec, img)
	}, nil
}

func (m Maker) makeDisk(id string, size int64) error {
	if err := os.MkdirAll(m.Dirs.VM(id), 0o700); err != nil {
		return reserve.Explain(err, m.Dirs.State)
	}
	return reserve.Explain(disk.Create(m.Dirs.Disk(id, ""), size), m.Dirs.State)
}
