package library

import (
	"context"

	"banger"
)

// PullKernel installs the distribution's kernel.
func (l *Library) PullKernel(ctx context.Context, emit banger.Emit) (banger.Kernel, error) {
	return l.kernels.Pull(ctx, emit)
}

// ImportKernel installs a kernel from files of the host. An empty image path means the kernel that the host runs.
func (l *Library) ImportKernel(ctx context.Context, name, image, modules string,
	emit banger.Emit) (banger.Kernel, error) {
	if image == "" {
		return l.kernels.ImportHost(ctx, emit)
	}
	return l.kernels.Import(ctx, name, image, modules, image, emit)
}

// Kernels returns all kernels.
func (l *Library) Kernels() ([]banger.Kernel, error) { return l.kernels.List() }

// Kernel returns one kernel.
func (l *Library) Kernel(name string) (banger.Kernel, error) { return l.kernels.Get(name) }

// RemoveKernel deletes a kernel that nothing needs.
func (l *Library) RemoveKernel(name string) error {
	return l.kernels.Remove(name, l.kernelUser)
}
