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

// Fork makes VMs that go on from a VM or a snapshot, and returns them. Those that could not be made are not there;
// the error is about the first one.
func (b *Branches) Fork(ctx context.Context, f banger.Fork, emit banger.Emit) (made []banger.VM, err error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	w, own, err := b.source(ctx, f.From, kind{}, emit)
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
func (b *Branches) source(ctx context.Context, ref string, k kind, emit banger.Emit) (w snapshot.Whole, own bool,
	err error) {
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
	s, err := b.create(ctx, vm.ID, "", k)
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
	if vm.Base == "" {
		n, err := b.Layers.Content(w.Layer)
		if err != nil {
			return vm, explain(err)
		}
		emit(banger.Event{Stage: "disk", Text: fmt.Sprintf("copying the disk for %s: %s, unless the file system shares it",
			vm.Name, banger.FormatSize(n))})
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
