package client

import (
	"context"

	"banger"
	"banger/internal/api/wire"
)

// PullKernel installs the distribution's kernel.
func (c kernelClient) PullKernel(ctx context.Context, emit banger.Emit) (banger.Kernel, error) {
	return c.streamKernel(ctx, "/v1/kernels/pull", nil, emit)
}

// ImportKernel installs a kernel from files. An empty image means the host's own kernel.
func (c kernelClient) ImportKernel(ctx context.Context, name, image, modules string,
	emit banger.Emit) (banger.Kernel, error) {
	body := wire.ImportRequest{Name: name, Image: image, Modules: modules}
	return c.streamKernel(ctx, "/v1/kernels/import", body, emit)
}

func (c kernelClient) streamKernel(ctx context.Context, path string, body any,
	emit banger.Emit) (banger.Kernel, error) {
	e, err := c.stream(ctx, path, nil, body, emit)
	if err != nil || e.Kernel == nil {
		return banger.Kernel{}, err
	}
	return *e.Kernel, nil
}

// Kernels returns all kernels.
func (c kernelClient) Kernels(ctx context.Context) (list []banger.Kernel, err error) {
	return list, c.call(ctx, "GET", "/v1/kernels", nil, nil, &list)
}

// Kernel returns one kernel.
func (c kernelClient) Kernel(ctx context.Context, name string) (k banger.Kernel, err error) {
	return k, c.call(ctx, "GET", "/v1/kernels/"+name, nil, nil, &k)
}

// RemoveKernel deletes a kernel.
func (c kernelClient) RemoveKernel(ctx context.Context, name string) error {
	return c.call(ctx, "DELETE", "/v1/kernels/"+name, nil, nil, nil)
}
