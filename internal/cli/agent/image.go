package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/work"
	"banger/internal/config"
	"banger/internal/recipe"
)

// image returns the image with an agent. With build it makes that image if it is not there; otherwise it returns nil.
// The name of the image follows from what is in it.
func image(ctx context.Context, a *command.App, c *client.Client, name string, r recipe.Recipe, build bool) (
	*banger.Image, error) {
	base, err := work.Image(ctx, a, c, config.ForWork().Image, "", banger.PullMissing, build)
	if err != nil || base == nil {
		return nil, err
	}
	key := sha256.Sum256([]byte(base.Digest + " " + r.Key()))
	ref := "localhost/banger/" + name + ":" + hex.EncodeToString(key[:8])
	img, err := c.Image(ctx, ref)
	if err == nil {
		return &img, nil
	}
	if !build || banger.CodeOf(err) != banger.CodeNotFound {
		return nil, notFound(err)
	}
	p := a.Progress()
	defer p.Close()
	if err := work.Programs(a).Fetch(ctx, r, p.Emit); err != nil { // the daemon does not wait for the network
		return nil, err
	}
	packed, w := io.Pipe()
	failed := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with the pipe
		err := work.Programs(a).Layer(ctx, r, recipe.Root(name), w, p.Emit)
		w.CloseWithError(err)
		failed <- err
	}()
	img, err = c.ExtendImage(ctx, base.Digest, ref, packed, banger.CommitNote{Author: "banger agent",
		Message: r.Description}, p.Emit)
	packed.CloseWithError(io.ErrClosedPipe)
	if lerr := <-failed; lerr != nil && banger.CodeOf(lerr) != banger.CodeInternal { // it says more than the cut upload
		err = lerr
	}
	img.Reference = ref
	return &img, err
}

// notFound returns nil for the error of an image that is not there.
func notFound(err error) error {
	if banger.CodeOf(err) == banger.CodeNotFound {
		return nil
	}
	return err
}
