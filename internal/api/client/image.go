package client

import (
	"context"
	"io"
	"net/url"

	"banger"
	"banger/internal/api/wire"
)

// PullImage fetches and converts an image.
func (c imageClient) PullImage(ctx context.Context, ref, platform string, emit banger.Emit) (banger.Image, error) {
	return c.streamImage(ctx, "/v1/images/pull", wire.PullRequest{Reference: ref, Platform: platform}, emit)
}

// PushImage writes an image to the registry in its name.
func (c imageClient) PushImage(ctx context.Context, ref string, emit banger.Emit) (banger.Image, error) {
	return c.streamImage(ctx, "/v1/images/push", wire.PushRequest{Reference: ref}, emit)
}

// CommitVM makes an image from the changes in a running VM.
func (c imageClient) CommitVM(ctx context.Context, vm, target string, note banger.CommitNote,
	emit banger.Emit) (banger.Image, error) {
	return c.streamImage(ctx, vmPath(vm, "commit"), wire.CommitRequest{Target: target, CommitNote: note}, emit)
}

func (c imageClient) streamImage(ctx context.Context, path string, body any, emit banger.Emit) (banger.Image, error) {
	return imageOf(c.stream(ctx, path, nil, body, emit))
}

// imageOf returns the image of the last event of a stream.
func imageOf(e banger.Event, err error) (banger.Image, error) {
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
	body := wire.RegisterRequest{Name: name, Rootfs: rootfs, Kernel: kernel}
	return img, c.call(ctx, "POST", "/v1/images/register", nil, body, &img)
}

// PromoteImage copies a registered file into the store.
func (c imageClient) PromoteImage(ctx context.Context, ref string) (img banger.Image, err error) {
	return img, c.call(ctx, "POST", "/v1/images/promote", nil, wire.PromoteRequest{Reference: ref}, &img)
}

// TagImage gives an image another name.
func (c imageClient) TagImage(ctx context.Context, source, target string) (img banger.Image, err error) {
	return img, c.call(ctx, "POST", "/v1/images/tag", nil, wire.TagRequest{Source: source, Target: target}, &img)
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

// ExtendImage makes the image target of the image base and one more layer, a plain tar that it reads from layer.
func (c imageClient) ExtendImage(ctx context.Context, base, target string, layer io.Reader, note banger.CommitNote,
	emit banger.Emit) (banger.Image, error) {
	q := url.Values{"base": {base}, "target": {target}, "author": {note.Author}, "message": {note.Message}}
	return imageOf(c.stream(ctx, "/v1/images/extend", q, layer, emit))
}

// ImageUsage returns the space that each image takes.
func (c imageClient) ImageUsage(ctx context.Context) (list []banger.ImageUsage, err error) {
	return list, c.call(ctx, "GET", "/v1/images/usage", nil, nil, &list)
}

// PruneImages removes images and blobs that are not needed. With dryRun it only reports them.
func (c imageClient) PruneImages(ctx context.Context, all, dryRun bool) (p banger.Pruned, err error) {
	return p, c.call(ctx, "POST", "/v1/images/prune", nil, wire.PruneRequest{All: all, DryRun: dryRun}, &p)
}

// RemoveImage deletes an image.
func (c imageClient) RemoveImage(ctx context.Context, ref string) error {
	return c.call(ctx, "DELETE", "/v1/image", url.Values{"reference": {ref}}, nil, nil)
}
