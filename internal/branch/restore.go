package branch

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/secret"
	"banger/internal/shim"
	"banger/internal/snapshot"
	"banger/internal/vmm"
)

// Restore lets a VM go back to one of its snapshots. The state that it has now becomes an automatic snapshot. A VM
// whose snapshot has memory then goes on; any other one is stopped. If something fails before the VM has ended, it
// goes on as it was. After the death of the daemon it is as it was, or the next daemon completes the restore.
// withSecrets allows that the automatic snapshot has secrets in its memory.
func (b *Branches) Restore(ctx context.Context, ref, name string, withSecrets bool,
	emit banger.Emit) (vm banger.VM, err error) {
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
		if err := b.guard(vm, false, withSecrets); err != nil {
			return err
		}
		emit(banger.Event{Stage: "snapshot", Text: "keeping the present state of " + vm.Name})
		kept, err := b.take(ctx, m, snapshot.Whole{Snapshot: banger.Snapshot{Automatic: true}})
		if err != nil {
			return err
		}
		emit(banger.Event{Stage: "snapshot", Text: "the present state is kept as " + kept.Name, Done: true})
		if err := b.prepare(ctx, m, w); err != nil {
			return errors.Join(b.failed(vm, err), b.Tidy(m.Snapshot()), b.History.Remove(kept.ID))
		}
		return b.failed(vm, b.goBack(ctx, m, w, emit))
	})
}

// prepare makes the files with which a VM goes back to a snapshot, beside those that it has, and then notes that it
// goes back. The VM may run meanwhile.
func (b *Branches) prepare(ctx context.Context, m Machine, w snapshot.Whole) error {
	vm := m.Snapshot()
	if w.Memory {
		if err := b.Dirs.MakeBeneath(vm.ID, shim.SnapDir); err != nil {
			return err
		}
		if err := b.History.CopyTo(ctx, w.ID, filepath.Join(b.Dirs.VM(vm.ID), shim.SnapDir), true); err != nil {
			return err
		}
	}
	var err error
	if b.overlays(vm) {
		err = b.Layers.Plant(vm.ID, w.Layer)
	} else {
		err = b.Layers.Prepare(ctx, vm.ID, w.Layer)
	}
	if err != nil {
		return err
	}
	return m.Change(ctx, func(vm *banger.VM) { vm.Restoring = w.ID })
}

// goBack gives a VM that was prepared the disk and the memory of a snapshot. It may be called again, after the death
// of a daemon.
func (b *Branches) goBack(ctx context.Context, m Machine, w snapshot.Whole, emit banger.Emit) (err error) {
	vm := m.Snapshot()
	dir := b.Dirs.VM(vm.ID)
	snap := filepath.Join(dir, shim.SnapDir)
	if !w.Memory || vmm.HasSnapshot(snap) { // otherwise the memory has moved already
		if err = m.Rest(ctx, "it went back to the snapshot "+w.Name); err == nil && w.Memory {
			err = snapshot.Move(snap, dir)
		}
	}
	base := ""
	if b.overlays(vm) {
		base = w.Layer
	} else if err == nil {
		err = b.Layers.Place(vm.ID)
	}
	if err != nil {
		return errors.Join(err, m.Change(ctx, func(vm *banger.VM) { vm.Restoring = "" }))
	}
	if err := m.Change(ctx, back(w, base)); err != nil {
		return err
	}
	if err := b.Tidy(m.Snapshot()); err != nil {
		b.Log.Warn("what was left of a restore was not removed", "vm", vm.Name, "err", err)
	}
	if !w.Memory {
		return nil
	}
	return m.Wake(ctx, emit)
}

// back returns the change of a VM that has gone back to a snapshot, whose disk then is on the layer base. With memory
// the VM has the sizes that it had, and nothing is left of how it has ended.
func back(w snapshot.Whole, base string) func(*banger.VM) {
	return func(vm *banger.VM) {
		vm.Base, vm.Snapshot, vm.Initramfs, vm.Restoring = base, w.ID, w.Machine.Initramfs, ""
		if w.Memory {
			was := w.Machine
			vm.Secrets = secret.Join(vm.Secrets, was.Secrets) // those in its memory, and those that the host has
			vm.Kernel, vm.Spec.CPUs, vm.Spec.Memory, vm.Next = was.Kernel, was.Spec.CPUs, was.Spec.Memory, nil
			vm.ExitCode, vm.Halted, vm.Restarts, vm.RestartAt = nil, false, 0, time.Time{}
		}
	}
}

// Complete completes a restore that the death of a daemon has cut off, if there is one. It is for the owner of a VM.
func (b *Branches) Complete(ctx context.Context, m Machine) error {
	vm := m.Snapshot()
	if vm.Restoring == "" {
		return nil
	}
	w, err := b.History.Find(vm.Restoring)
	if err != nil {
		return errors.Join(err, m.Change(ctx, func(vm *banger.VM) { vm.Restoring = "" }))
	}
	b.Log.Info("a restore is completed", "vm", vm.Name, "snapshot", w.Name)
	return b.goBack(ctx, m, w, banger.Discard)
}
