// Package library keeps the images and kernels that VMs are made of. It keeps what is needed; everything else can be
// removed at any time. The package must not know how a VM is run.
package library

import (
	"context"
	"io"

	"banger"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/reserve"
)

// VMs are the VMs that use images and kernels.
type VMs interface {
	// List returns the VMs for which keep returns true. Library calls it while a store is locked, so List and keep must
	// not use the stores.
	List(keep func(banger.VM) bool) []banger.VM
	// Changes returns the changes of a running VM to its image as a tar, which the caller must close.
	Changes(ctx context.Context, ref string) (banger.VM, io.ReadCloser, error)
}

// Options are the parts of a Library. The caller owns them.
type Options struct {
	Images  *image.Store
	Kernels *kernel.Store
	VMs     VMs
	// Reserve is released when the disk is full and something must be removed. It may be nil.
	Reserve *reserve.File
	Dir     string // directory of the stores, for errors
}

// Library holds all images and kernels of one daemon. Its methods may be called concurrently.
type Library struct {
	images  *image.Store
	kernels *kernel.Store
	vms     VMs
	reserve *reserve.File
	dir     string
}

// New returns a Library with the parts o.
func New(o Options) *Library {
	return &Library{images: o.Images, kernels: o.Kernels, vms: o.VMs, reserve: o.Reserve, dir: o.Dir}
}

// gone is the number of tries to find and pin something. It may be removed between these two steps.
const gone = 3

// UseImage returns the image that ref names, as image.Store.Ensure does, and prevents its removal until release is
// called. by names the user of the image, as in "it is needed by the creation of VM box".
func (l *Library) UseImage(ctx context.Context, ref, platform, pull, by string,
	emit banger.Emit) (img banger.Image, release func(), err error) {
	for range gone {
		if img, err = l.images.Ensure(ctx, ref, platform, pull, emit); err != nil {
			return img, nil, err
		}
		if release, err = l.images.Pin(img.Digest, by); err == nil {
			return img, release, nil
		}
	}
	return img, nil, err
}

// UseKernel returns the named kernel, as kernel.Store.Ensure does, and prevents its removal until release is called.
func (l *Library) UseKernel(ctx context.Context, name, by string,
	emit banger.Emit) (k banger.Kernel, release func(), err error) {
	for range gone {
		if k, err = l.kernels.Ensure(ctx, name, emit); err != nil {
			return k, nil, err
		}
		if release, err = l.kernels.Pin(k.Name, by); err == nil {
			return k, release, nil
		}
	}
	return k, nil, err
}

// Initramfs returns the path and the name of an initramfs with agent for a kernel. It removes those with earlier
// agents, except those of VMs that are not at rest.
func (l *Library) Initramfs(kernel string, agent []byte) (path, name string, err error) {
	return l.kernels.Initrd(kernel, agent, func(file string) bool {
		return len(l.vms.List(func(vm banger.VM) bool {
			return vm.Kernel == kernel && vm.Initramfs == file && !vm.State.AtRest()
		})) > 0
	})
}

// imageUser returns a VM or a snapshot that uses an image, as banger.UserOf takes it, or "".
func (l *Library) imageUser(digest string) string {
	return first(l.vms.List(func(vm banger.VM) bool { return vm.ImageDigest == digest }))
}

// kernelUser is like imageUser.
func (l *Library) kernelUser(name string) string {
	return first(l.vms.List(func(vm banger.VM) bool { return vm.Kernel == name }))
}

func first(vms []banger.VM) string {
	if len(vms) == 0 {
		return ""
	}
	return vms[0].Name
}
