package supervisor

import (
	"context"

	"banger"
)

// PullImage fetches and converts an image, whatever is there already.
func (s *Supervisor) PullImage(ctx context.Context, ref string, emit banger.Emit) (banger.Image, error) {
	s.images.RLock()
	defer s.images.RUnlock()
	ref, err := s.opts.Images.Normalize(ref)
	if err != nil {
		return banger.Image{}, err
	}
	return s.opts.Images.Ensure(ctx, ref, banger.PullAlways, emit)
}

// Images returns all images by reference.
func (s *Supervisor) Images() ([]banger.Image, error) { return s.opts.Images.List() }

// Image returns the image that ref names: a reference or a digest.
func (s *Supervisor) Image(ref string) (banger.Image, error) { return s.opts.Images.Find(ref) }

// RemoveImage deletes an image that no VM uses.
func (s *Supervisor) RemoveImage(ref string) error {
	if !s.images.TryLock() {
		return errBusy()
	}
	defer s.images.Unlock()
	img, err := s.opts.Images.Find(ref)
	if err != nil {
		return err
	}
	used := s.List(func(vm banger.VM) bool { return vm.ImageDigest == img.Digest })
	if len(used) > 0 {
		return banger.Errorf(banger.CodeConflict, "image %s is used by VM %s", img.Reference, used[0].Name).
			WithHint("remove it first: banger rm %s", used[0].Name)
	}
	return s.opts.Images.Remove(img.Reference)
}

// PullKernel installs the distribution's kernel.
func (s *Supervisor) PullKernel(ctx context.Context, emit banger.Emit) (banger.Kernel, error) {
	return s.opts.Kernels.Pull(ctx, emit)
}

// ImportKernel installs a kernel from files of the host; an empty image path
// means the kernel that the host runs.
func (s *Supervisor) ImportKernel(ctx context.Context, name, image, modules string, emit banger.Emit) (banger.Kernel, error) {
	if image == "" {
		return s.opts.Kernels.ImportHost(ctx, emit)
	}
	return s.opts.Kernels.Import(ctx, name, image, modules, image, emit)
}

// Kernels returns all kernels.
func (s *Supervisor) Kernels() ([]banger.Kernel, error) { return s.opts.Kernels.List() }

// Kernel returns one kernel.
func (s *Supervisor) Kernel(name string) (banger.Kernel, error) { return s.opts.Kernels.Get(name) }

// RemoveKernel deletes a kernel that no VM uses.
func (s *Supervisor) RemoveKernel(name string) error {
	if !s.images.TryLock() {
		return errBusy()
	}
	defer s.images.Unlock()
	used := s.List(func(vm banger.VM) bool { return vm.Kernel == name })
	if len(used) > 0 {
		return banger.Errorf(banger.CodeConflict, "kernel %s is used by VM %s", name, used[0].Name).
			WithHint("remove it first: banger rm %s", used[0].Name)
	}
	return s.opts.Kernels.Remove(name)
}

// errBusy is returned instead of waiting, since a pull may take long and a
// waiting writer would hold up every new VM.
func errBusy() error {
	return banger.Errorf(banger.CodeConflict, "nothing can be removed while an image is being pulled or a VM created").
		WithHint("try again when it is done")
}
