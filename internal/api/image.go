package api

import (
	"net/http"

	"banger"
)

func (s *Server) listImages(w http.ResponseWriter, req *http.Request) error {
	check := req.URL.Query().Get("check") == "true"
	return writeList(w, func() ([]banger.Image, error) {
		if check {
			return s.Images.CheckImages(req.Context())
		}
		return s.Images.Images()
	})
}

func (s *Server) pullImage(w http.ResponseWriter, req *http.Request) error {
	var body pullRequest
	if err := decode(req, &body); err != nil {
		return err
	}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		img, err := s.Transfers.PullImage(req.Context(), body.Reference, body.Platform, emit)
		return banger.Event{Image: &img}, err
	})
}

func (s *Server) pushImage(w http.ResponseWriter, req *http.Request) error {
	var body pushRequest
	if err := decode(req, &body); err != nil {
		return err
	}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		img, err := s.Transfers.PushImage(req.Context(), body.Reference, emit)
		return banger.Event{Image: &img}, err
	})
}

func (s *Server) commitVM(w http.ResponseWriter, req *http.Request) error {
	var body commitRequest
	if err := decode(req, &body); err != nil {
		return err
	}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		img, err := s.Transfers.CommitVM(req.Context(), req.PathValue("vm"), body.Target, body.CommitNote, emit)
		return banger.Event{Image: &img}, err
	})
}

func (s *Server) registerImage(w http.ResponseWriter, req *http.Request) error {
	var body registerRequest
	if err := decode(req, &body); err != nil {
		return err
	}
	img, err := s.Transfers.RegisterImage(req.Context(), body.Name, body.Rootfs, body.Kernel)
	if err != nil {
		return err
	}
	return writeJSON(w, img)
}

func (s *Server) promoteImage(w http.ResponseWriter, req *http.Request) error {
	var body promoteRequest
	if err := decode(req, &body); err != nil {
		return err
	}
	img, err := s.Transfers.PromoteImage(req.Context(), body.Reference)
	if err != nil {
		return err
	}
	return writeJSON(w, img)
}

func (s *Server) tagImage(w http.ResponseWriter, req *http.Request) error {
	var body tagRequest
	if err := decode(req, &body); err != nil {
		return err
	}
	img, err := s.Images.TagImage(body.Source, body.Target)
	if err != nil {
		return err
	}
	return writeJSON(w, img)
}

func (s *Server) getImage(w http.ResponseWriter, req *http.Request) error {
	img, err := s.Images.Image(req.URL.Query().Get("reference"))
	if err != nil {
		return err
	}
	return writeJSON(w, img)
}

func (s *Server) imageHistory(w http.ResponseWriter, req *http.Request) error {
	return writeList(w, func() ([]banger.ImageStep, error) {
		return s.Images.ImageHistory(req.Context(), req.URL.Query().Get("reference"))
	})
}

func (s *Server) removeImage(w http.ResponseWriter, req *http.Request) error {
	if err := s.Images.RemoveImage(req.URL.Query().Get("reference")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// saveImages answers with a tar. A failure in the middle cuts the connection. The client then does not take a partial
// tar for a complete one.
func (s *Server) saveImages(w http.ResponseWriter, req *http.Request) error {
	write, err := s.Transfers.SaveImages(req.URL.Query()["reference"])
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	if err := write(req.Context(), w); err != nil {
		s.Log.Warn("save", "err", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

func (s *Server) loadImages(w http.ResponseWriter, req *http.Request) error {
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		list, err := s.Transfers.LoadImages(req.Context(), req.Body, emit)
		return banger.Event{Images: list}, err
	})
}

func (s *Server) imageUsage(w http.ResponseWriter, _ *http.Request) error {
	return writeList(w, s.Images.ImageUsage)
}

func (s *Server) pruneImages(w http.ResponseWriter, req *http.Request) error {
	var body pruneRequest
	if err := decode(req, &body); err != nil {
		return err
	}
	p, err := s.Images.PruneImages(body.All, body.DryRun)
	if err != nil {
		return err
	}
	return writeJSON(w, p)
}
