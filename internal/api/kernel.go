package api

import (
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
	var body wire.ImportRequest
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
