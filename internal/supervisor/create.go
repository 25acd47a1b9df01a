package supervisor

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"banger"
	"banger/internal/assembly"
	"banger/internal/friendly"
	"banger/internal/image"
	"banger/internal/secret"
	"banger/internal/store"
)

// createTries is the maximum number of tries to find a free random name.
const createTries = 20

// Create makes a VM and, if start is set, boots it. It writes the row first, so everything that follows has an owner
// even after a crash. A failure or the end of ctx leaves nothing behind, except a VM whose guest did not boot, because
// its console log is needed. secrets has the values of its secrets by name.
func (s *Supervisor) Create(ctx context.Context, spec banger.Spec, secrets map[string][]byte, start bool,
	emit banger.Emit) (_ banger.VM, err error) {
	if err := cmp.Or(spec.Normalize(), secret.CheckNew(secrets, spec.SecretEnv)); err != nil {
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
	m, err := s.insert(ctx, banger.VM{Spec: spec, Name: spec.Name, State: banger.StateCreated, Fresh: true,
		CreatedAt: time.Now().UTC(), VMM: driver.String(), Isolation: s.opts.VMMs.Isolation(),
		Secrets: slices.Sorted(maps.Keys(secrets))})
	if err != nil {
		return banger.VM{}, err
	}
	kept := false
	defer func() {
		if err != nil && !kept {
			err = errors.Join(err, m.discard())
		}
	}()
	emit(banger.Event{ID: m.ID()})
	if err := (secret.Files{Dir: s.dirs.Secrets(m.ID())}).WriteAll(secrets); err != nil {
		return banger.VM{}, err
	}
	parts := assembly.Maker{Library: s.library, Dirs: s.dirs, HostKey: s.launcher.HostKey}
	assembled, release, err := parts.Make(ctx, m.Snapshot(), emit)
	if err != nil {
		return banger.VM{}, err
	}
	defer release()
	m.Update(assembled)
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
	return m.Snapshot(), nil
}

// insert chooses a name if the user gave none, and writes the uncommitted row.
func (s *Supervisor) insert(ctx context.Context, vm banger.VM) (m *machine, err error) {
	err = s.networks.Use(ctx, vm.Spec.Network, func() error { // the network cannot be removed meanwhile
		m, err = s.insertNow(ctx, vm)
		return err
	})
	return m, err
}

func (s *Supervisor) insertNow(ctx context.Context, vm banger.VM) (*machine, error) {
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
			return nil, store.Explain(err, s.opts.StateDir)
		}
	}
}
