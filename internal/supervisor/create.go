package supervisor

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"banger"
	"banger/internal/disk"
	"banger/internal/friendly"
	"banger/internal/image"
	"banger/internal/launch"
	"banger/internal/networks"
	"banger/internal/reserve"
	"banger/internal/resolve"
)

// createTries is the maximum number of tries to find a free random name.
const createTries = 20

// Create makes a VM and, if start is set, boots it. It writes the row first, so everything that follows has an owner
// even after a crash. A failure or the end of ctx leaves nothing behind, except a VM whose guest did not boot,
// because its console log is needed.
func (s *Supervisor) Create(ctx context.Context, spec banger.Spec, start bool,
	emit banger.Emit) (_ banger.VM, err error) {
	if err := spec.Normalize(); err != nil {
		return banger.VM{}, err
	}
	if spec.Image, err = s.opts.Images.Normalize(spec.Image); err != nil {
		return banger.VM{}, err
	}
	if err := image.CheckGuest(spec.Platform); err != nil {
		return banger.VM{}, err
	}
	if err := s.checkHost(spec, emit); err != nil {
		return banger.VM{}, err
	}
	driver, err := s.opts.VMMs.Choose(ctx, spec)
	if err != nil {
		return banger.VM{}, err
	}
	if start {
		if err := s.networks.CheckPorts(spec.Forwards); err != nil {
			return banger.VM{}, err
		}
	}
	var m *machine
	err = s.networks.Use(ctx, spec.Network, func() error { // the network cannot be removed meanwhile
		m, err = s.insert(ctx, banger.VM{Spec: spec, Name: spec.Name, State: banger.StateCreated, Fresh: true,
			CreatedAt: time.Now().UTC(), VMM: driver.String(), Isolation: s.opts.VMMs.Isolation()})
		return err
	})
	if err != nil {
		return banger.VM{}, err
	}
	kept := false
	defer func() {
		if err != nil && !kept {
			err = errors.Join(err, m.discard())
		}
	}()
	emit(banger.Event{ID: m.id()})
	release, err := creation{m, spec}.prepare(ctx, emit)
	if err != nil {
		return banger.VM{}, err
	}
	defer release()
	if start {
		err := m.do(ctx, func(ctx context.Context) error { return m.start(ctx, spec.Attach, false, emit) })
		if banger.CodeOf(err) == banger.CodeGuest && !spec.AutoRemove { // the console log says more than the error
			kept = m.do(context.WithoutCancel(ctx), m.commit) == nil
		}
		if err != nil {
			return banger.VM{}, err
		}
	}
	if err := m.do(ctx, m.commit); err != nil {
		return banger.VM{}, err
	}
	return m.snapshot(), nil
}

// creation is the work of making the parts of a new VM.
type creation struct {
	m    *machine
	spec banger.Spec
}

// prepare gets the image and the kernel of a new VM and makes its disk. Image and kernel cannot be removed before
// release is called; after that, they stay while the VM names them.
func (c creation) prepare(ctx context.Context, emit banger.Emit) (release func(), err error) {
	m, spec := c.m, c.spec
	by := "the creation of VM " + m.snapshot().Name
	watch := launch.NewStopwatch()
	img, kern, release, err := m.s.library.Use(ctx, spec, by, emit, watch.Lap)
	if err != nil {
		return nil, err
	}
	if err := c.assemble(img, kern, watch); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// assemble makes the files of a new VM, and stores the names of its parts in the VM.
func (c creation) assemble(img banger.Image, kern banger.Kernel, watch *launch.Stopwatch) error {
	m, spec := c.m, c.spec
	main, err := resolve.Main(spec, img)
	if err != nil {
		return err
	}
	if err := resolve.CheckImage(spec, img); err != nil {
		return err
	}
	var more []banger.Forward
	if spec.PublishAll {
		if more, err = networks.Exposed(img, spec.Forwards); err != nil {
			return err
		}
	}
	if err := c.makeDisk(); err != nil {
		return err
	}
	_, hostKey, err := m.s.launcher.HostKey(m.id())
	if err != nil {
		return err
	}
	// The contents of the disk and the key are durable. Their names must also be durable before the VM is visible.
	if err := m.s.dirs.Sync(m.id()); err != nil {
		return reserve.Explain(err, m.s.opts.StateDir)
	}
	watch.Lap("disk")
	m.update(func(vm *banger.VM) {
		vm.ImageDigest, vm.Kernel, vm.Main, vm.Timings = img.Digest, kern.Name, main, watch.Timings
		vm.Spec.Init, vm.Spec.Forwards = resolve.Init(spec, img), append(slices.Clone(vm.Spec.Forwards), more...)
		vm.SSHHostKey, vm.Probe = hostKey, resolve.Probe(spec, img)
	})
	return nil
}

// insert chooses a name if the user gave none, and writes the uncommitted row.
func (s *Supervisor) insert(ctx context.Context, vm banger.VM) (*machine, error) {
	vm.ID = banger.NewID()
	for try := 0; ; try++ {
		if vm.Spec.Name == "" {
			vm.Name = friendly.Name()
		}
		slot, err := s.opts.Store.Create(ctx, vm)
		if err == nil {
			return s.adopt(vm, slot), nil
		}
		if vm.Spec.Name != "" || banger.CodeOf(err) != banger.CodeConflict || try == createTries {
			return nil, storing(err, s.opts.StateDir)
		}
	}
}

func (c creation) makeDisk() error {
	s, id := c.m.s, c.m.id()
	if err := os.MkdirAll(s.dirs.VM(id), 0o700); err != nil {
		return reserve.Explain(err, s.opts.StateDir)
	}
	return reserve.Explain(disk.Create(s.dirs.Disk(id), c.spec.Disk), s.opts.StateDir)
}
