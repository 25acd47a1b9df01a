package api

import (
	"context"
	"net/http"

	"banger"
	"banger/internal/api/wire"
)

func listKernels(s *Server, w http.ResponseWriter, _ *http.Request) error {
	return wire.WriteList(w, s.Kernels.Kernels)
}

func pullKernel(s *Server, w http.ResponseWriter, req *http.Request) error {
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		k, err := s.Kernels.PullKernel(req.Context(), emit)
		return banger.Event{Kernel: &k}, err
	})
}

func importKernel(s *Server, w http.ResponseWriter, req *http.Request) error {
	var body importRequest
	if err := wire.Decode(req, &body); err != nil {
		return err
	}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		k, err := s.Kernels.ImportKernel(req.Context(), body.Name, body.Image, body.Modules, emit)
		return banger.Event{Kernel: &k}, err
	})
}

func getKernel(s *Server, w http.ResponseWriter, req *http.Request) error {
	k, err := s.Kernels.Kernel(req.PathValue("kernel"))
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, k)
}

func removeKernel(s *Server, w http.ResponseWriter, req *http.Request) error {
	if err := s.Kernels.RemoveKernel(req.PathValue("kernel")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// PullKernel installs the distribution's kernel.
func (c kernelClient) PullKernel(ctx context.Context, emit banger.Emit) (banger.Kernel, error) {
	return c.streamKernel(ctx, "/v1/kernels/pull", nil, emit)
}

// ImportKernel installs a kernel from files. An empty image means the host's own kernel.
func (c kernelClient) ImportKernel(ctx context.Context, name, image, modules string,
	emit banger.Emit) (banger.Kernel, error) {
	return c.streamKernel(ctx, "/v1/kernels/import", importRequest{name, image, modules}, emit)
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
