package supervisor

import (
	"context"
	"io"

	"banger"
)

// PullImage fetches and converts an image, whatever is there already. The platform
// is os/arch[/variant]; "" is this machine's.
func (s *Supervisor) PullImage(ctx context.Context, ref, platform string, emit banger.Emit) (banger.Image, error) {
	s.images.RLock()
	defer s.images.RUnlock()
	ref, err := s.opts.Images.Normalize(ref)
	if err != nil {
		return banger.Image{}, err
	}
	return s.opts.Images.Ensure(ctx, ref, platform, banger.PullAlways, emit)
}

// Images returns all images by reference.
func (s *Supervisor) Images() ([]banger.Image, error) { return s.opts.Images.List() }

// Image returns the image that ref names: a reference or a digest.
func (s *Supervisor) Image(ref string) (banger.Image, error) { return s.opts.Images.Find(ref) }

// CheckImages returns all images and asks the registries whether their tags have
// moved on.
func (s *Supervisor) CheckImages(ctx context.Context) ([]banger.Image, error) {
	return s.opts.Images.Check(ctx)
}

// ImageHistory returns how an image was built, newest step first.
func (s *Supervisor) ImageHistory(ctx context.Context, ref string) ([]banger.ImageStep, error) {
	return s.opts.Images.History(ctx, ref)
}

// TagImage gives an image another name.
func (s *Supervisor) TagImage(source, target string) (banger.Image, error) {
	return s.opts.Images.Tag(source, target)
}

// PushImage writes an image to the registry that its name says.
func (s *Supervisor) PushImage(ctx context.Context, ref string, emit banger.Emit) (banger.Image, error) {
	s.images.RLock()
	defer s.images.RUnlock()
	return s.opts.Images.Push(ctx, ref, emit)
}

// CommitVM makes an image of what a running VM has changed.
func (s *Supervisor) CommitVM(ctx context.Context, ref, target string, note banger.CommitNote, emit banger.Emit) (banger.Image, error) {
	m, err := s.find(ref)
	if err != nil {
		return banger.Image{}, err
	}
	s.images.RLock()
	defer s.images.RUnlock()
	vm := m.snapshot()
	if vm.State != banger.StateRunning {
		return banger.Image{}, stateError("commit", vm, "start it: banger start "+vm.Name)
	}
	changes, err := m.agent().Changes(ctx)
	if err != nil {
		return banger.Image{}, err
	}
	defer changes.Close()
	return s.opts.Images.Commit(ctx, vm.ImageDigest, target, changes, note, emit)
}

// RegisterImage makes an image of an ext4 file of the host, which stays where it is.
// VMs of it get the kernel, when it names one.
func (s *Supervisor) RegisterImage(ctx context.Context, name, rootfs, kernel string) (banger.Image, error) {
	s.images.RLock()
	defer s.images.RUnlock()
	if kernel != "" {
		if _, err := s.opts.Kernels.Get(kernel); err != nil {
			return banger.Image{}, err
		}
	}
	return s.opts.Images.Register(ctx, name, rootfs, kernel)
}

// PromoteImage copies a registered file into the store.
func (s *Supervisor) PromoteImage(ctx context.Context, ref string) (banger.Image, error) {
	s.images.RLock()
	defer s.images.RUnlock()
	return s.opts.Images.Promote(ctx, ref)
}

// SaveImages finds images; what it returns writes them as one tar.
func (s *Supervisor) SaveImages(refs []string) (write func(context.Context, io.Writer) error, err error) {
	if len(refs) == 0 {
		return nil, banger.Errorf(banger.CodeInvalid, "no image is named")
	}
	e, err := s.opts.Images.Export(refs)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, w io.Writer) error {
		s.images.RLock()
		defer s.images.RUnlock()
		return e.Write(ctx, w)
	}, nil
}

// LoadImages brings in the images of an archive.
func (s *Supervisor) LoadImages(ctx context.Context, r io.Reader, emit banger.Emit) ([]banger.Image, error) {
	s.images.RLock()
	defer s.images.RUnlock()
	return s.opts.Images.Load(ctx, r, emit)
}

// ImageUsage returns what each image takes on the host.
func (s *Supervisor) ImageUsage() ([]banger.ImageUsage, error) { return s.opts.Images.Usage() }

// PruneImages removes images without a name, with all those without a VM, and
// blobs that no image needs.
func (s *Supervisor) PruneImages(all, dryRun bool) (p banger.Pruned, err error) {
	s.removing.Lock()
	defer s.removing.Unlock()
	if !s.images.TryLock() {
		return banger.Pruned{}, errBusy()
	}
	defer s.images.Unlock()
	defer s.refill()
	inUse := func(digest string) bool {
		return len(s.List(func(vm banger.VM) bool { return vm.ImageDigest == digest })) > 0
	}
	err = s.roomy(func() error {
		p, err = s.opts.Images.Prune(all, dryRun, inUse)
		return err
	})
	return p, noSpace(err, s.opts.StateDir)
}

// RemoveImage deletes an image that no VM uses.
func (s *Supervisor) RemoveImage(ref string) error {
	s.removing.Lock()
	defer s.removing.Unlock()
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
	defer s.refill()
	return noSpace(s.roomy(func() error { return s.opts.Images.Remove(img.Reference) }), s.opts.StateDir)
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
	s.removing.Lock()
	defer s.removing.Unlock()
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
