package library

import (
	"context"
	"io"

	"banger"
	"banger/internal/reserve"
)

// PullImage fetches and converts an image, even if one with this name exists. The platform is os/arch[/variant]; ""
// means this machine's.
func (l *Library) PullImage(ctx context.Context, ref, platform string, emit banger.Emit) (banger.Image, error) {
	ref, err := l.images.Normalize(ref)
	if err != nil {
		return banger.Image{}, err
	}
	return l.images.Ensure(ctx, ref, platform, banger.PullAlways, emit)
}

// Images returns all images, sorted by reference.
func (l *Library) Images() ([]banger.Image, error) { return l.images.List() }

// Image returns the image that ref names: a reference or a digest.
func (l *Library) Image(ref string) (banger.Image, error) { return l.images.Find(ref) }

// CheckImages returns all images, and asks the registries whether their tags name other images now.
func (l *Library) CheckImages(ctx context.Context) ([]banger.Image, error) {
	return l.images.Check(ctx)
}

// ImageHistory returns how an image was built, newest step first.
func (l *Library) ImageHistory(ctx context.Context, ref string) ([]banger.ImageStep, error) {
	return l.images.History(ctx, ref)
}

// TagImage gives an image another name.
func (l *Library) TagImage(source, target string) (banger.Image, error) {
	return l.images.Tag(source, target)
}

// PushImage writes an image to the registry in its name.
func (l *Library) PushImage(ctx context.Context, ref string, emit banger.Emit) (banger.Image, error) {
	return l.images.Push(ctx, ref, emit)
}

// CommitVM makes an image from the changes in a running VM.
func (l *Library) CommitVM(ctx context.Context, ref, target string, note banger.CommitNote,
	emit banger.Emit) (banger.Image, error) {
	vm, changes, err := l.vms.Changes(ctx, ref)
	if err != nil {
		return banger.Image{}, err
	}
	defer changes.Close()
	return l.images.Commit(ctx, vm.ImageDigest, target, changes, note, emit)
}

// RegisterImage makes an image from an ext4 file of the host, which stays where it is. VMs of the image use the
// kernel if one is named.
func (l *Library) RegisterImage(ctx context.Context, name, rootfs, kernel string) (banger.Image, error) {
	if kernel != "" {
		release, err := l.kernels.Pin(kernel, "the registration of image "+name)
		if err != nil {
			return banger.Image{}, err
		}
		defer release()
	}
	return l.images.Register(ctx, name, rootfs, kernel)
}

// PromoteImage copies a registered file into the store.
func (l *Library) PromoteImage(ctx context.Context, ref string) (banger.Image, error) {
	return l.images.Promote(ctx, ref)
}

// SaveImages finds images and returns a function that writes them as one tar.
func (l *Library) SaveImages(refs []string) (write func(context.Context, io.Writer) error, err error) {
	if len(refs) == 0 {
		return nil, banger.Errorf(banger.CodeInvalid, "no image is named")
	}
	e, err := l.images.Export(refs)
	if err != nil {
		return nil, err
	}
	return e.Write, nil
}

// LoadImages imports the images of an archive.
func (l *Library) LoadImages(ctx context.Context, r io.Reader, emit banger.Emit) ([]banger.Image, error) {
	return l.images.Load(ctx, r, emit)
}

// ExtendImage makes the image target of the image base and one more layer, a plain tar.
func (l *Library) ExtendImage(ctx context.Context, base, target string, layer io.Reader, note banger.CommitNote,
	emit banger.Emit) (banger.Image, error) {
	return l.images.Commit(ctx, base, target, layer, note, emit)
}

// ImageUsage returns the space that each image takes on the host.
func (l *Library) ImageUsage() ([]banger.ImageUsage, error) { return l.images.Usage() }

// PruneImages removes images without a name (with all, every image without a VM) and blobs that no image needs. p
// also lists images that stay because something needs them.
func (l *Library) PruneImages(all, dryRun bool) (p banger.Pruned, err error) {
	defer l.reserve.Refill()
	err = l.reserve.Retry(func() error {
		p, err = l.images.Prune(all, dryRun, l.imageUser)
		return err
	})
	return p, reserve.Explain(err, l.dir)
}

// RemoveImage deletes an image that nothing needs.
func (l *Library) RemoveImage(ref string) error {
	defer l.reserve.Refill()
	err := l.reserve.Retry(func() error { return l.images.Remove(ref, l.imageUser) })
	return reserve.Explain(err, l.dir)
}
