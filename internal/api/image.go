package api

import (
	"net/http"

	"banger"
	"banger/internal/api/wire"
)

func listImages(s *Server, w http.ResponseWriter, req *http.Request) error {
	check := req.URL.Query().Get("check") == "true"
	return wire.WriteList(w, func() ([]banger.Image, error) {
		if check {
			return s.Images.CheckImages(req.Context())
		}
		return s.Images.Images()
	})
}

func pullImage(s *Server, w http.ResponseWriter, req *http.Request) error {
	var body wire.PullRequest
	if err := wire.Decode(req, &body); err != nil {
		return err
	}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		img, err := s.Transfers.PullImage(req.Context(), body.Reference, body.Platform, emit)
		return banger.Event{Image: &img}, err
	})
}

func pushImage(s *Server, w http.ResponseWriter, req *http.Request) error {
	var body wire.PushRequest
	if err := wire.Decode(req, &body); err != nil {
		return err
	}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		img, err := s.Transfers.PushImage(req.Context(), body.Reference, emit)
		return banger.Event{Image: &img}, err
	})
}

func commitVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	var body wire.CommitRequest
	if err := wire.Decode(req, &body); err != nil {
		return err
	}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		img, err := s.Transfers.CommitVM(req.Context(), req.PathValue("vm"), body.Target, body.CommitNote, emit)
		return banger.Event{Image: &img}, err
	})
}

func registerImage(s *Server, w http.ResponseWriter, req *http.Request) error {
	var body wire.RegisterRequest
	if err := wire.Decode(req, &body); err != nil {
		return err
	}
	img, err := s.Transfers.RegisterImage(req.Context(), body.Name, body.Rootfs, body.Kernel)
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, img)
}

func promoteImage(s *Server, w http.ResponseWriter, req *http.Request) error {
	var body wire.PromoteRequest
	if err := wire.Decode(req, &body); err != nil {
		return err
	}
	img, err := s.Transfers.PromoteImage(req.Context(), body.Reference)
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, img)
}

func tagImage(s *Server, w http.ResponseWriter, req *http.Request) error {
	var body wire.TagRequest
	if err := wire.Decode(req, &body); err != nil {
		return err
	}
	img, err := s.Images.TagImage(body.Source, body.Target)
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, img)
}

func getImage(s *Server, w http.ResponseWriter, req *http.Request) error {
	img, err := s.Images.Image(req.URL.Query().Get("reference"))
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, img)
}

func imageHistory(s *Server, w http.ResponseWriter, req *http.Request) error {
	return wire.WriteList(w, func() ([]banger.ImageStep, error) {
		return s.Images.ImageHistory(req.Context(), req.URL.Query().Get("reference"))
	})
}

func removeImage(s *Server, w http.ResponseWriter, req *http.Request) error {
	if err := s.Images.RemoveImage(req.URL.Query().Get("reference")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// saveImages answers with a tar. A failure in the middle cuts the connection. The client then does not take a partial
// tar for a complete one.
func saveImages(s *Server, w http.ResponseWriter, req *http.Request) error {
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

func loadImages(s *Server, w http.ResponseWriter, req *http.Request) error {
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		list, err := s.Transfers.LoadImages(req.Context(), req.Body, emit)
		return banger.Event{Images: list}, err
	})
}

// extendImage tells its progress while it reads the body.
func extendImage(s *Server, w http.ResponseWriter, req *http.Request) error {
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		return err
	}
	q := req.URL.Query()
	note := banger.CommitNote{Author: q.Get("author"), Message: q.Get("message")}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		img, err := s.Transfers.ExtendImage(req.Context(), q.Get("base"), q.Get("target"), req.Body, note, emit)
		return banger.Event{Image: &img}, err
	})
}

func imageUsage(s *Server, w http.ResponseWriter, _ *http.Request) error {
	return wire.WriteList(w, s.Images.ImageUsage)
}

func pruneImages(s *Server, w http.ResponseWriter, req *http.Request) error {
	var body wire.PruneRequest
	if err := wire.Decode(req, &body); err != nil {
		return err
	}
	p, err := s.Images.PruneImages(body.All, body.DryRun)
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, p)
}
