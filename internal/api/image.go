package api

import (
	"context"
	"io"
	"net/http"
	"net/url"

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
	var body pullRequest
	if err := wire.Decode(req, &body); err != nil {
		return err
	}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		img, err := s.Transfers.PullImage(req.Context(), body.Reference, body.Platform, emit)
		return banger.Event{Image: &img}, err
	})
}

func pushImage(s *Server, w http.ResponseWriter, req *http.Request) error {
	var body pushRequest
	if err := wire.Decode(req, &body); err != nil {
		return err
	}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		img, err := s.Transfers.PushImage(req.Context(), body.Reference, emit)
		return banger.Event{Image: &img}, err
	})
}

func commitVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	var body commitRequest
	if err := wire.Decode(req, &body); err != nil {
		return err
	}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		img, err := s.Transfers.CommitVM(req.Context(), req.PathValue("vm"), body.Target, body.CommitNote, emit)
		return banger.Event{Image: &img}, err
	})
}

func registerImage(s *Server, w http.ResponseWriter, req *http.Request) error {
	var body registerRequest
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
	var body promoteRequest
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
	var body tagRequest
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

func imageUsage(s *Server, w http.ResponseWriter, _ *http.Request) error {
	return wire.WriteList(w, s.Images.ImageUsage)
}

func pruneImages(s *Server, w http.ResponseWriter, req *http.Request) error {
	var body pruneRequest
	if err := wire.Decode(req, &body); err != nil {
		return err
	}
	p, err := s.Images.PruneImages(body.All, body.DryRun)
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, p)
}

// PullImage fetches and converts an image.
func (c imageClient) PullImage(ctx context.Context, ref, platform string, emit banger.Emit) (banger.Image, error) {
	return c.streamImage(ctx, "/v1/images/pull", pullRequest{ref, platform}, emit)
}

// PushImage writes an image to the registry in its name.
func (c imageClient) PushImage(ctx context.Context, ref string, emit banger.Emit) (banger.Image, error) {
	return c.streamImage(ctx, "/v1/images/push", pushRequest{ref}, emit)
}

// CommitVM makes an image from the changes in a running VM.
func (c imageClient) CommitVM(ctx context.Context, vm, target string, note banger.CommitNote,
	emit banger.Emit) (banger.Image, error) {
	return c.streamImage(ctx, vmPath(vm, "commit"), commitRequest{target, note}, emit)
}

func (c imageClient) streamImage(ctx context.Context, path string, body any, emit banger.Emit) (banger.Image, error) {
	e, err := c.stream(ctx, path, nil, body, emit)
	if err != nil || e.Image == nil {
		return banger.Image{}, err
	}
	return *e.Image, nil
}

// Images returns all images. With check, the daemon asks their registries and sets Moved.
func (c imageClient) Images(ctx context.Context, check bool) (list []banger.Image, err error) {
	query := url.Values{}
	if check {
		query.Set("check", "true")
	}
	return list, c.call(ctx, "GET", "/v1/images", query, nil, &list)
}

// Image returns one image.
func (c imageClient) Image(ctx context.Context, ref string) (img banger.Image, err error) {
	return img, c.call(ctx, "GET", "/v1/image", url.Values{"reference": {ref}}, nil, &img)
}

// ImageHistory returns how an image was built, newest step first.
func (c imageClient) ImageHistory(ctx context.Context, ref string) (list []banger.ImageStep, err error) {
	return list, c.call(ctx, "GET", "/v1/image/history", url.Values{"reference": {ref}}, nil, &list)
}

// RegisterImage makes an image from an ext4 file of the host.
func (c imageClient) RegisterImage(ctx context.Context, name, rootfs, kernel string) (img banger.Image, err error) {
	return img, c.call(ctx, "POST", "/v1/images/register", nil, registerRequest{name, rootfs, kernel}, &img)
}

// PromoteImage copies a registered file into the store.
func (c imageClient) PromoteImage(ctx context.Context, ref string) (img banger.Image, err error) {
	return img, c.call(ctx, "POST", "/v1/images/promote", nil, promoteRequest{ref}, &img)
}

// TagImage gives an image another name.
func (c imageClient) TagImage(ctx context.Context, source, target string) (img banger.Image, err error) {
	return img, c.call(ctx, "POST", "/v1/images/tag", nil, tagRequest{source, target}, &img)
}

// SaveImages writes images to w as one tar. After an error, w holds a part of the tar.
func (c imageClient) SaveImages(ctx context.Context, refs []string, w io.Writer) error {
	resp, err := c.send(ctx, "GET", "/v1/images/save", url.Values{"reference": refs}, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return banger.Errorf(banger.CodeUnavailable, "cannot save the images: %w", err)
	}
	return nil
}

// LoadImages imports the images of an archive.
func (c imageClient) LoadImages(ctx context.Context, r io.Reader, emit banger.Emit) ([]banger.Image, error) {
	e, err := c.stream(ctx, "/v1/images/load", nil, r, emit)
	return e.Images, err
}

// ImageUsage returns the space that each image takes.
func (c imageClient) ImageUsage(ctx context.Context) (list []banger.ImageUsage, err error) {
	return list, c.call(ctx, "GET", "/v1/images/usage", nil, nil, &list)
}

// PruneImages removes images and blobs that are not needed. With dryRun it only reports them.
func (c imageClient) PruneImages(ctx context.Context, all, dryRun bool) (p banger.Pruned, err error) {
	return p, c.call(ctx, "POST", "/v1/images/prune", nil, pruneRequest{all, dryRun}, &p)
}

// RemoveImage deletes an image.
func (c imageClient) RemoveImage(ctx context.Context, ref string) error {
	return c.call(ctx, "DELETE", "/v1/image", url.Values{"reference": {ref}}, nil, nil)
}
