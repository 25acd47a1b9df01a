package branch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"banger"
	"banger/internal/friendly"
	"banger/internal/secret"
	"banger/internal/snapshot"
	"banger/internal/vmm"
)

// Fork makes VMs that go on from a VM or a snapshot, and returns them. Those that could not be made are not there;
// the error is about the first one.
func (b *Branches) Fork(ctx context.Context, f banger.Fork, emit banger.Emit) (made []banger.VM, err error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	if vm, err := b.VMs.Get(f.From); err == nil { // before its snapshot is taken
		if err := secret.GuardFork(vm, f.WithSecrets); err != nil {
			return nil, err
		}
	}
	w, own, err := b.source(ctx, f.From, kind{secrets: f.WithSecrets}, emit)
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
	if err := secret.GuardFork(w.Machine, f.WithSecrets); err != nil {
		return nil, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	vms, err := b.describe(w, f, emit)
	if err != nil {
		return nil, err
	}
	return b.makeAll(ctx, w, vms, emit)
}

// makeAll makes forks, as many at a time as the host has CPUs. After a failure it begins no more.
func (b *Branches) makeAll(ctx context.Context, w snapshot.Whole, vms []banger.VM,
	emit banger.Emit) (made []banger.VM, failed error) {
	var wg sync.WaitGroup
	var stop atomic.Bool
	errs, places := make([]error, len(vms)), make(chan struct{}, runtime.NumCPU())
	for i := range vms {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			if stop.Load() {
				errs[i] = errNotBegun
				return
			}
			if vms[i], errs[i] = b.VMs.Fork(ctx, vms[i], source{b, w}, emit); errs[i] != nil {
				stop.Store(true)
			}
		})
	}
	wg.Wait()
	for i, err := range errs {
		switch {
		case err == nil:
			made = append(made, vms[i])
		case err != errNotBegun && failed == nil:
			failed = err
		}
	}
	return made, failed
}

// errNotBegun means that a fork was not begun, because another one has failed.
var errNotBegun = errors.New("not begun")

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

// describe returns the VMs that f wants of a snapshot, with their names, and tells what is copied for them.
func (b *Branches) describe(w snapshot.Whole, f banger.Fork, emit banger.Emit) (vms []banger.VM, err error) {
	taken := map[string]bool{}
	for _, vm := range b.VMs.List(func(banger.VM) bool { return true }) {
		taken[vm.Name] = true
	}
	for number := 1; number <= max(f.Number, 1); number++ {
		vm := b.forkOf(w)
		vm.Spec.AutoRemove = f.AutoRemove
		vm.Name = cmp.Or(strings.ReplaceAll(f.Name, "{n}", strconv.Itoa(number)), nameFor(w, taken))
		vm.Spec.Name, taken[vm.Name] = vm.Name, true
		if err := banger.CheckName(vm.Name); err != nil {
			return nil, err
		}
		vms = append(vms, vm)
	}
	if vms[0].Base == "" {
		n, err := b.Layers.Content(w.Layer)
		if err != nil {
			return nil, explain(err)
		}
		text := fmt.Sprintf("copying the disk for each VM: %s, unless the file system shares it", banger.FormatSize(n))
		emit(banger.Event{Stage: "disk", Text: text})
	}
	return vms, nil
}

// forkOf returns a VM that goes on from a snapshot, without its name.
func (b *Branches) forkOf(w snapshot.Whole) banger.VM {
	was := w.Machine
	vm := banger.VM{Spec: was.Spec, State: banger.StateCreated, CreatedAt: time.Now().UTC(), ImageDigest: was.ImageDigest,
		Kernel: was.Kernel, Initramfs: was.Initramfs, VMM: was.VMM, Isolation: was.Isolation, Probe: was.Probe,
		Main: was.Main, Snapshot: w.ID, ForkOf: w.VM, Secrets: was.Secrets}
	vm.Spec.Attach = false
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
	return vm
}

// nameFor returns a name for a fork that is not taken: that of the source with a number.
func nameFor(w snapshot.Whole, taken map[string]bool) string {
	base := w.VMName
	if len(base) > 50 {
		return friendly.Name()
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
	err := s.b.secrets(s.w.VM).CopyTo(s.b.secrets(vm.ID), vm.Secrets)
	if err != nil {
		return err
	}
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

// secrets returns the files of a VM's secrets.
func (b *Branches) secrets(id string) secret.Files { return secret.Files{Dir: b.Dirs.Secrets(id)} }

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
