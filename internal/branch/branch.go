// Package branch takes snapshots of VMs, lets VMs go back to them, and makes VMs that go on from them. It must not
// know how a VM starts, nor what is in a disk.
package branch

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"banger"
	"banger/internal/overlay"
	"banger/internal/reserve"
	"banger/internal/secret"
	"banger/internal/shim"
	"banger/internal/snapshot"
	"banger/internal/untrusted"
	"banger/internal/vmdir"
	"banger/internal/vmm"
	"banger/internal/vmm/choice"
)

// VMs are the VMs of a daemon.
type VMs interface {
	Get(ref string) (banger.VM, error)
	List(keep func(banger.VM) bool) []banger.VM
	// Own runs f while nothing else changes the VM. The end of ctx does not interrupt f.
	Own(ctx context.Context, ref string, f func(context.Context, Machine) error) (banger.VM, error)
	// Fork makes a VM that goes on from a source, and starts it. A failure leaves nothing behind.
	Fork(ctx context.Context, vm banger.VM, from Source, emit banger.Emit) (banger.VM, error)
	Remove(ctx context.Context, ref string, force bool) error
	Rename(ctx context.Context, ref, name string) (banger.VM, error)
}

// Machine is one VM for its owner.
type Machine interface {
	Snapshot() banger.VM
	// Change changes the row of the VM and then the VM, or neither.
	Change(ctx context.Context, change func(*banger.VM)) error
	Shim() shim.Client
	Pause(ctx context.Context) error
	Suspend(ctx context.Context) error
	// Wake lets a suspended VM go on, also one whose memory has just been put into its directory.
	Wake(ctx context.Context, emit banger.Emit) error
	// Rest ends the VM at once, without its memory.
	Rest(ctx context.Context, reason string) error
}

// Source is what a new VM goes on from.
type Source interface {
	// Make makes the files of the VM in its directory.
	Make(ctx context.Context, vm banger.VM) error
	// Saved opens the memory, which the caller closes. It returns nil if there is none, so the VM boots.
	Saved(ctx context.Context, vm banger.VM) (*vmm.Saved, error)
}

// Forwards are the published ports of VMs.
type Forwards interface {
	AddForward(ctx context.Context, ref string, f banger.Forward) (banger.Forward, error)
	RemoveForward(ctx context.Context, ref string, f banger.Forward) error
}

// Options are the parts of Branches. The caller owns them.
type Options struct {
	VMs      VMs
	Forwards Forwards
	Dirs     vmdir.Dirs
	VMMs     choice.Host
	Log      *slog.Logger
}

// Branches are the snapshots of a daemon. Its methods may be called at the same time.
type Branches struct {
	Options
	Layers  *overlay.Store
	History *snapshot.Store

	mu   sync.RWMutex // written to when snapshots and layers go
	deep chan string  // layers that are too far from the lowest one
}

// New returns the snapshots with the parts o, as they are in its directories. Close ends them.
func New(o Options) (*Branches, error) {
	layers, err := overlay.Open(o.Dirs)
	history, herr := snapshot.Open(o.Dirs.Snapshots())
	return &Branches{Options: o, Layers: layers, History: history, deep: make(chan string, 64)}, errors.Join(err, herr)
}

// Close gives up the memories of snapshots. VMs that have them keep them.
func (b *Branches) Close() { b.History.Close() }

// Run joins the layers that are too many beneath a disk, until ctx ends. A layer that it has missed is joined with
// the next one of its VM.
func (b *Branches) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case layer := <-b.deep:
			if err := b.Layers.Join(ctx, layer); err != nil && ctx.Err() == nil {
				b.Log.Warn("layers were not joined", "layer", layer, "err", err)
			} else {
				b.Sweep()
			}
		}
	}
}

// watchDepth has a new layer joined with those beneath it if they are too many.
func (b *Branches) watchDepth(layer string) {
	if n, err := b.Layers.Depth(layer); err != nil || n < overlay.MaxDepth {
		return
	}
	select {
	case b.deep <- layer:
	default: // a later one will be joined
	}
}

// List returns all snapshots, the newest first, or those of one VM if ref is not "".
func (b *Branches) List(ref string) ([]banger.Snapshot, error) {
	id := ""
	if ref != "" {
		vm, err := b.VMs.Get(ref)
		if err != nil {
			return nil, err
		}
		id = vm.ID
	}
	all, err := b.History.List()
	list := []banger.Snapshot{}
	for _, w := range all {
		if !w.Passing && (id == "" || w.VM == id) {
			list = append(list, w.Snapshot)
		}
	}
	return list, explain(err)
}

// Get returns the snapshot that ref names.
func (b *Branches) Get(ref string) (banger.Snapshot, error) {
	w, err := b.History.Find(ref)
	return w.Snapshot, err
}

// explain gives an error of files its code.
func explain(err error) error {
	if err == nil || banger.CodeOf(err) != banger.CodeInternal {
		return err
	}
	return banger.Errorf(banger.CodeUnavailable, "the snapshots cannot be read: %w", banger.Cause(err))
}

// Create takes a snapshot of a VM. One that runs goes on. withSecrets allows that its memory has secrets.
func (b *Branches) Create(ctx context.Context, ref, name string, withSecrets bool) (banger.Snapshot, error) {
	return b.create(ctx, ref, name, kind{stays: true, secrets: withSecrets})
}

// kind says what a snapshot is for.
type kind struct {
	stays     bool // the VM has come from it from now on
	automatic bool
	disk      bool // it has no memory
	secrets   bool // its memory may have secrets
}

// create is Create for a kind.
func (b *Branches) create(ctx context.Context, ref, name string, k kind) (s banger.Snapshot, err error) {
	if name != "" {
		if err := banger.CheckSnapshot(name); err != nil {
			return s, err
		}
		if err := b.History.CheckName(name); err != nil {
			return s, err
		}
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	vm, err := b.VMs.Own(ctx, ref, func(ctx context.Context, m Machine) error {
		w := snapshot.Whole{Snapshot: banger.Snapshot{Name: name, Automatic: k.automatic},
			Passing: !k.stays && !k.automatic, DiskOnly: k.disk}
		if err := b.guard(m.Snapshot(), k.disk, k.secrets); err != nil {
			return err
		}
		if s, err = b.take(ctx, m, w); err != nil || !k.stays {
			return err
		}
		return m.Change(ctx, func(vm *banger.VM) { vm.Snapshot = s.ID })
	})
	if err == nil {
		b.watchDepth(s.Layer)
		b.Log.Info("a snapshot was taken", "vm", vm.Name, "snapshot", s.Name, "paused_ms", s.Paused)
	}
	return s, err
}

// guard returns an error if a snapshot would write the memory of a VM with secrets, unless that is allowed. One of the
// disk alone does so, too, where the VMM can only write down a VM that then ends.
func (b *Branches) guard(vm banger.VM, disk, allowed bool) error {
	switch {
	case vm.State.AtRest(), disk && (vm.State == banger.StateSuspended || b.overlays(vm)):
		return nil
	case disk:
		return secret.GuardDisk(vm)
	}
	return secret.Guard(vm, "take a snapshot of", allowed)
}

// take takes the snapshot w, of which it completes the description, in the owner of a VM.
func (b *Branches) take(ctx context.Context, m Machine, w snapshot.Whole) (banger.Snapshot, error) {
	vm := m.Snapshot()
	if vm.Spec.Nested != "" && !vm.State.AtRest() && !w.DiskOnly {
		return banger.Snapshot{}, banger.Errorf(banger.CodeConflict, "VM %s has no snapshot: %w", vm.Name,
			vmm.ErrNestedSnapshot).WithHint("stop it first: banger stop %s", vm.Name)
	}
	w.ID, w.VM, w.VMName, w.Parent = banger.NewID(), vm.ID, vm.Name, vm.Snapshot
	w.Created, w.Image, w.VMM = time.Now().UTC(), vm.Spec.Image, vm.VMM
	var s banger.Snapshot
	var err error
	switch {
	case vm.State == banger.StateRunning || vm.State == banger.StatePaused:
		s, err = b.ofRunning(ctx, m, w)
	case vm.State == banger.StateSuspended:
		s, err = b.ofResting(ctx, m, w, b.Dirs.VM(vm.ID))
	case vm.State.AtRest():
		s, err = b.ofResting(ctx, m, w, "")
	default:
		return s, vm.StateError("take a snapshot of", "wait until it runs or has ended; see: banger ps -a")
	}
	return s, b.failed(vm, err)
}

// failed gives an error about a VM its code and its words.
func (b *Branches) failed(vm banger.VM, err error) error {
	switch {
	case err == nil:
		return nil
	case banger.CodeOf(err) == banger.CodeDisk:
		return banger.Errorf(banger.CodeDisk, "VM %s has no new snapshot, and is as it was: the disk of %s is full", vm.Name,
			b.Dirs.State).WithHint("see what takes room: banger system df")
	case banger.CodeOf(err) != banger.CodeInternal:
		return err
	}
	err = reserve.Explain(err, b.Dirs.State)
	if banger.CodeOf(err) != banger.CodeInternal {
		return err
	}
	return banger.Errorf(banger.CodeUnavailable, "the snapshot of VM %s failed: %w", vm.Name, banger.Cause(err))
}

// ofRunning takes a snapshot of a VM that runs.
func (b *Branches) ofRunning(ctx context.Context, m Machine, w snapshot.Whole) (_ banger.Snapshot, err error) {
	vm := m.Snapshot()
	if !b.overlays(vm) {
		return b.ofSuspended(ctx, m, w)
	}
	if _, err := m.Shim().Settled(ctx); err != nil {
		return w.Snapshot, err
	}
	if vm.State == banger.StatePaused { // its agent must answer; a daemon that finds it so pauses it again
		if err := m.Shim().Resume(ctx); err != nil {
			return w.Snapshot, err
		}
		defer func() { err = errors.Join(err, m.Shim().Pause(ctx)) }()
	}
	layer, err := b.begin(ctx, m)
	if err != nil {
		return w.Snapshot, err
	}
	dir := filepath.Join(b.Dirs.VM(vm.ID), shim.SnapDir)
	defer untrusted.RemoveAll(dir)
	if err := b.Dirs.MakeBeneath(vm.ID, shim.SnapDir); err != nil {
		return w.Snapshot, errors.Join(err, b.Settle(ctx, m))
	}
	paused, err := m.Shim().Snapshot(ctx, shim.Snapshot{Overlay: filepath.Base(b.Dirs.Disk(vm.ID, layer)),
		Frozen: filepath.Base(b.Dirs.Disk(vm.ID, vm.Base)), Disk: w.DiskOnly})
	if err != nil {
		return w.Snapshot, errors.Join(err, b.Settle(ctx, m))
	}
	if err := b.Layers.Freeze(layer); err != nil {
		return w.Snapshot, err
	}
	w.Layer, w.Paused, w.Machine = layer, paused.Milliseconds(), m.Snapshot()
	return b.History.Add(ctx, w, dir, true)
}

// ofSuspended takes a snapshot of a VM that runs, or is paused, whose VMM can only write down a VM that then ends.
func (b *Branches) ofSuspended(ctx context.Context, m Machine, w snapshot.Whole) (banger.Snapshot, error) {
	began, was := time.Now(), m.Snapshot()
	if err := m.Suspend(ctx); err != nil {
		return w.Snapshot, err
	}
	s, err := b.ofResting(ctx, m, w, b.Dirs.VM(was.ID))
	if werr := m.Wake(ctx, banger.Discard); werr != nil {
		return s, errors.Join(err, werr)
	}
	if was.State == banger.StatePaused {
		err = errors.Join(err, m.Pause(ctx))
	}
	s.Paused = time.Since(began).Milliseconds()
	return s, err
}

// begin makes a new layer of a VM's disk, with an overlay on it to which nothing writes yet.
func (b *Branches) begin(ctx context.Context, m Machine) (layer string, err error) {
	vm := m.Snapshot()
	if layer, err = b.Layers.Begin(vm); err != nil {
		return "", err
	}
	if err := m.Change(ctx, func(vm *banger.VM) { vm.Base = layer }); err != nil {
		return "", errors.Join(err, b.Layers.Abandon(vm.ID, layer))
	}
	return layer, nil
}

// Settle completes or undoes a layer whose making was cut off, as the shim of the VM says when it is done with it. It
// removes what else was left in the VM's directory.
func (b *Branches) Settle(ctx context.Context, m Machine) error {
	if err := b.settle(ctx, m); err != nil {
		return err
	}
	return b.Tidy(m.Snapshot())
}

func (b *Branches) settle(ctx context.Context, m Machine) error {
	vm := m.Snapshot()
	if b.IsSettled(vm) {
		return nil
	}
	l, err := b.Layers.Get(vm.Base)
	if err != nil {
		return err
	}
	st, err := m.Shim().Settled(ctx)
	if err != nil || st.Ended { // the next start completes it
		return err
	}
	if st.Disk == filepath.Base(b.Dirs.Disk(vm.ID, vm.Base)) {
		return b.Layers.Freeze(vm.Base)
	}
	return b.undo(ctx, m, l.Parent, l.ID)
}

// undo gives up a layer that was begun. The disk writes to what it wrote to before, on the layer base.
func (b *Branches) undo(ctx context.Context, m Machine, base, layer string) error {
	if err := m.Change(ctx, func(vm *banger.VM) { vm.Base = base }); err != nil {
		return err
	}
	return b.Layers.Abandon(m.Snapshot().ID, layer)
}

// IsSettled reports whether no snapshot of a VM was cut off, so Settle need not wait.
func (b *Branches) IsSettled(vm banger.VM) bool { return vm.Base == "" || b.Layers.IsFrozen(vm.Base) }

// Tidy removes from a VM's directory what was left of snapshots that were cut off. A restore that was cut off needs
// its files.
func (b *Branches) Tidy(vm banger.VM) error {
	if vm.Restoring != "" {
		return nil
	}
	return errors.Join(untrusted.RemoveAll(filepath.Join(b.Dirs.VM(vm.ID), shim.SnapDir)), b.Layers.Tidy(vm))
}

// ofResting takes a snapshot of a VM without a VMM. Its memory is in the directory from, unless that is "".
func (b *Branches) ofResting(ctx context.Context, m Machine, w snapshot.Whole, from string) (_ banger.Snapshot,
	err error) {
	vm := m.Snapshot()
	if vm.ImageDigest == "" {
		return w.Snapshot, vm.StateError("take a snapshot of", "wait until it is complete")
	}
	switch overlays := b.overlays(vm); {
	case overlays && w.DiskOnly && b.Layers.Untouched(vm):
		w.Layer = vm.Base
	case overlays:
		if w.Layer, err = b.begin(ctx, m); err == nil {
			if err = b.Layers.Freeze(w.Layer); err != nil {
				err = errors.Join(err, b.undo(ctx, m, vm.Base, w.Layer))
			}
		}
	default:
		w.Layer, err = b.Layers.Copy(ctx, vm)
	}
	if err != nil {
		return w.Snapshot, err
	}
	w.Machine = m.Snapshot()
	return b.History.Add(ctx, w, from, false)
}

// Unfold makes the disk of a VM at rest one file if the VMM that it starts on takes no overlays.
func (b *Branches) Unfold(ctx context.Context, m Machine, emit banger.Emit) error {
	vm := m.Snapshot()
	if vm.Base == "" {
		return nil
	}
	driver, err := b.VMMs.Choose(ctx, vm.Spec)
	if err != nil || driver.Overlays {
		return err
	}
	emit(banger.Event{Stage: "disk", Text: "making the disk of " + vm.Name + " one file for " + driver.Name})
	if err := b.Layers.Flatten(ctx, vm); err != nil {
		return reserve.Explain(err, b.Dirs.State)
	}
	return m.Change(ctx, func(vm *banger.VM) { vm.Base = "" })
}

// overlays reports whether the VMM that a VM has had takes overlays.
func (b *Branches) overlays(vm banger.VM) bool {
	name, _, _ := strings.Cut(vm.VMM, " ")
	for _, v := range b.VMMs.VMMs {
		if v.Name == name {
			return v.Overlays
		}
	}
	return false
}

// Remove removes a snapshot. VMs that have gone on from it stay as they are.
func (b *Branches) Remove(ref string) (banger.Snapshot, error) {
	w, err := b.History.Find(ref)
	if err != nil {
		return w.Snapshot, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.History.Remove(w.ID); err != nil && !errors.Is(err, os.ErrNotExist) {
		return w.Snapshot, banger.Errorf(banger.CodeUnavailable, "the snapshot %s was not removed: %w", w.Name,
			banger.Cause(err))
	}
	b.sweep()
	return w.Snapshot, nil
}

// Sweep removes the layers that no VM and no snapshot needs.
func (b *Branches) Sweep() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep()
}

// sweep is Sweep for a caller that holds mu.
func (b *Branches) sweep() {
	needed, err := b.Dirs.Bases()
	more, herr := b.History.Layers()
	if err = errors.Join(err, herr); err != nil { // what cannot be read may need anything
		b.Log.Warn("no layer was removed, because what needs them cannot be read", "err", err)
		return
	}
	for _, vm := range b.VMs.List(func(vm banger.VM) bool { return vm.Base != "" }) {
		needed = append(needed, vm.Base)
	}
	removed, err := b.Layers.Sweep(append(needed, more...))
	if err != nil || len(removed) > 0 {
		b.Log.Info("layers were removed", "number", len(removed), "err", err)
	}
}
