package branch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"banger"
	"banger/internal/friendly"
	"banger/internal/snapshot"
	"banger/internal/vmm"
)

// Restore lets a VM go back to one of its snapshots. The state that it has now becomes an automatic snapshot. A VM
// whose snapshot has memory then goes on; any other one is stopped.
func (b *Branches) Restore(ctx context.Context, ref, name string, emit banger.Emit) (vm banger.VM, err error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	w, err := b.History.Find(name)
	if err != nil {
		return vm, err
	}
	return b.VMs.Own(ctx, ref, func(ctx context.Context, m Machine) error {
		vm := m.Snapshot()
		if w.VM != vm.ID {
			return banger.Errorf(banger.CodeConflict, "the snapshot %s is one of VM %s, and not of %s", w.Name, w.VMName,
				vm.Name).WithHint("make a VM of it: banger run --from %s", w.Name)
		}
		emit(banger.Event{Stage: "snapshot", Text: "keeping the present state of " + vm.Name})
		kept, err := b.take(ctx, m, "", true)
		if err != nil {
			return err
		}
		emit(banger.Event{Stage: "snapshot", Text: "the present state is kept as " + kept.Name, Done: true})
		if err := m.Rest(ctx, "it went back to the snapshot "+w.Name); err != nil {
			return err
		}
		return b.failed(vm, b.goBack(ctx, m, w, emit))
	})
}

// goBack gives a VM at rest the disk and the memory of a snapshot. The state of before is kept in a snapshot.
func (b *Branches) goBack(ctx context.Context, m Machine, w snapshot.Whole, emit banger.Emit) error {
	vm := m.Snapshot()
	old := b.Dirs.Disk(vm.ID, vm.Base)
	if b.overlays(vm) {
		if err := b.Layers.Plant(vm.ID, w.Layer); err != nil {
			return err
		}
		if err := m.Change(ctx, back(w, w.Layer)); err != nil {
			return errors.Join(err, os.Remove(b.Dirs.Disk(vm.ID, w.Layer)))
		}
		os.Remove(old) // nothing has been written to it since the snapshot; a later start would remove it too
	} else {
		next := old + ".back"
		if err := b.Layers.Unfold(ctx, w.Layer, next); err != nil {
			return err
		}
		if err := os.Rename(next, old); err != nil {
			return err
		}
		if err := m.Change(ctx, back(w, "")); err != nil {
			return err
		}
	}
	if err := b.History.CopyTo(ctx, w.ID, b.Dirs.VM(vm.ID), w.Memory); err != nil || !w.Memory {
		return err
	}
	return m.Wake(ctx, emit)
}

// back returns the change of a VM that goes back to a snapshot, whose disk then is on the layer base. With memory the
// VM has the sizes that it had, and nothing is left of how it has ended.
func back(w snapshot.Whole, base string) func(*banger.VM) {
	return func(vm *banger.VM) {
		vm.Base, vm.Snapshot, vm.Initramfs = base, w.ID, w.Machine.Initramfs
		if w.Memory {
			vm.Kernel, vm.Spec.CPUs, vm.Spec.Memory, vm.Next = w.Machine.Kernel, w.Machine.Spec.CPUs, w.Machine.Spec.Memory, nil
			vm.ExitCode, vm.Halted, vm.Restarts, vm.RestartAt = nil, false, 0, time.Time{}
		}
	}
}

// Fork makes VMs that go on from a VM or a snapshot, and returns them. Those that could not be made are not there;
// the error is about the first one.
func (b *Branches) Fork(ctx context.Context, f banger.Fork, emit banger.Emit) (made []banger.VM, err error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	w, own, err := b.source(ctx, f.From, emit)
	if err != nil {
		return nil, err
	}
	if own { // VMs keep what they have of it
		defer func() {
			if _, rerr := b.Remove(w.ID); rerr != nil {
				b.Log.Warn("the snapshot of a fork was not removed", "snapshot", w.Name, "err", rerr)
			}
		}()
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	var failed error
	for n := range max(f.Number, 1) {
		vm, err := b.fork(ctx, w, f, n+1, emit)
		if err != nil {
			failed = errors.Join(failed, err)
			break
		}
		made = append(made, vm)
	}
	return made, failed
}

// source returns the snapshot that ref names, or takes one of the VM that ref names, which is then the caller's own.
func (b *Branches) source(ctx context.Context, ref string, emit banger.Emit) (w snapshot.Whole, own bool, err error) {
	vm, err := b.VMs.Get(ref)
	if banger.CodeOf(err) == banger.CodeNotFound {
		w, serr := b.History.Find(ref)
		if banger.CodeOf(serr) == banger.CodeNotFound {
			serr = banger.Errorf(banger.CodeNotFound, "there is no VM and no snapshot called %q", ref).
				WithHint("see: banger ps -a, banger snapshot ls")
		}
		return w, false, serr
	}
	if err != nil {
		return w, false, err
	}
	emit(banger.Event{Stage: "snapshot", Text: "taking a snapshot of " + vm.Name})
	s, err := b.create(ctx, vm.ID, "", kind{})
	if err != nil {
		return w, false, err
	}
	text := "the snapshot of " + vm.Name + " is taken"
	if s.Paused > 0 {
		text = fmt.Sprintf("%s stood still for %d ms", vm.Name, s.Paused)
	}
	emit(banger.Event{Stage: "snapshot", Text: text, Done: true})
	w, err = b.History.Find(s.ID)
	return w, true, err
}

// fork makes one VM of a snapshot. number begins with 1.
func (b *Branches) fork(ctx context.Context, w snapshot.Whole, f banger.Fork, number int,
	emit banger.Emit) (banger.VM, error) {
	was := w.Machine
	vm := banger.VM{Spec: was.Spec, State: banger.StateCreated, CreatedAt: time.Now().UTC(), ImageDigest: was.ImageDigest,
		Kernel: was.Kernel, Initramfs: was.Initramfs, VMM: was.VMM, Isolation: was.Isolation, Probe: was.Probe,
		Main: was.Main, Snapshot: w.ID, ForkOf: w.VM}
	vm.Spec.AutoRemove, vm.Spec.Attach = f.AutoRemove, false
	vm.Spec.Forwards = slices.Clone(was.Spec.Forwards)
	for i := range vm.Spec.Forwards { // the source has the ports
		vm.Spec.Forwards[i].HostPort = 0
	}
	if vm.Spec.Hostname == was.Name {
		vm.Spec.Hostname = ""
	}
	if b.overlays(was) {
		vm.Base = w.Layer
	}
	vm.Spec.Name = strings.ReplaceAll(f.Name, "{n}", strconv.Itoa(number))
	if vm.Spec.Name == "" {
		vm.Spec.Name = b.nameFor(w)
	}
	vm.Name = vm.Spec.Name
	if err := banger.CheckName(vm.Name); err != nil {
		return vm, err
	}
	return b.VMs.Fork(ctx, vm, source{b, w}, emit)
}

// nameFor returns a free name for a fork: that of the source with a number.
func (b *Branches) nameFor(w snapshot.Whole) string {
	base := w.VMName
	if len(base) > 50 {
		return friendly.Name()
	}
	taken := map[string]bool{}
	for _, vm := range b.VMs.List(func(banger.VM) bool { return true }) {
		taken[vm.Name] = true
	}
	for n := 1; ; n++ {
		if name := fmt.Sprintf("%s-%d", base, n); !taken[name] {
			return name
		}
	}
}

// source is a snapshot as the source of a VM.
type source struct {
	b *Branches
	w snapshot.Whole
}

// Make implements Source.
func (s source) Make(ctx context.Context, vm banger.VM) error {
	dir := s.b.Dirs.VM(vm.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var err error
	if vm.Base != "" {
		err = s.b.Layers.Plant(vm.ID, vm.Base)
	} else {
		err = s.b.Layers.Unfold(ctx, s.w.Layer, s.b.Dirs.Disk(vm.ID, ""))
	}
	if err != nil || !s.w.Memory {
		return err
	}
	return s.b.History.CopyTo(ctx, s.w.ID, dir, false)
}

// Saved implements Source.
func (s source) Saved(ctx context.Context, vm banger.VM) (*vmm.Saved, error) {
	if !s.w.Memory {
		return nil, nil
	}
	driver, err := s.b.VMMs.Choose(ctx, vm.Spec)
	if err != nil {
		return nil, err
	}
	return s.b.History.Saved(s.w.ID, driver.SealedMemory)
}
