package branch

import (
	"context"

	"banger"
)

// Keep puts a fork in the place of the VM that it was made of: under its name, with its published ports. That VM
// goes; its state becomes an automatic snapshot. The other forks are then those of the fork. If Keep is interrupted,
// the fork is there under its own name, and the other VM or its snapshot is. withSecrets allows that the snapshot has
// secrets in its memory.
func (b *Branches) Keep(ctx context.Context, ref string, withSecrets bool, emit banger.Emit) (banger.VM, error) {
	fork, err := b.VMs.Get(ref)
	if err != nil {
		return fork, err
	}
	if fork.ForkOf == "" {
		return fork, banger.Errorf(banger.CodeConflict, "VM %s is no fork", fork.Name).WithHint("see: banger fork --help")
	}
	source, err := b.VMs.Get(fork.ForkOf)
	if err != nil {
		return fork, banger.Errorf(banger.CodeOf(err), "the VM of which %s is a fork is not there any more", fork.Name).
			WithHint("give the fork another name: banger rename %s NAME", fork.Name)
	}
	s, err := b.create(ctx, source.ID, "", kind{automatic: true, secrets: withSecrets})
	if err != nil {
		return fork, err
	}
	emit(banger.Event{Stage: "snapshot", Text: "the state of " + source.Name + " is kept as " + s.Name, Done: true})
	if err := b.VMs.Remove(ctx, source.ID, true); err != nil {
		return fork, err
	}
	if _, err := b.VMs.Rename(ctx, fork.ID, source.Name); err != nil {
		return fork, err
	}
	for _, vm := range b.VMs.List(func(vm banger.VM) bool { return vm.ForkOf == source.ID }) {
		of := fork.ID
		if vm.ID == fork.ID {
			of = ""
		}
		_, err := b.VMs.Own(ctx, vm.ID, func(ctx context.Context, m Machine) error {
			return m.Change(ctx, func(vm *banger.VM) { vm.ForkOf = of })
		})
		if err != nil {
			return fork, err
		}
	}
	if err := b.moveForwards(ctx, fork.ID, source.Spec.Forwards); err != nil {
		return fork, err
	}
	return b.VMs.Get(fork.ID)
}

// moveForwards gives a VM other forwards in place of its own.
func (b *Branches) moveForwards(ctx context.Context, ref string, wanted []banger.Forward) error {
	vm, err := b.VMs.Get(ref)
	for _, f := range vm.Spec.Forwards {
		for _, now := range vm.Forwards { // with the port that was chosen
			if f.HostPort == 0 && now.GuestPort == f.GuestPort && now.Protocol == f.Protocol {
				f = now
			}
		}
		if err == nil {
			err = b.Forwards.RemoveForward(ctx, ref, f)
		}
	}
	for _, f := range wanted {
		if err == nil {
			_, err = b.Forwards.AddForward(ctx, ref, f)
		}
	}
	return err
}

// RemoveForks removes the forks of a VM with all that is in them, and returns those.
func (b *Branches) RemoveForks(ctx context.Context, ref string) (removed []banger.VM, err error) {
	source, err := b.VMs.Get(ref)
	if err != nil {
		return nil, err
	}
	for _, vm := range b.VMs.List(func(vm banger.VM) bool { return vm.ForkOf == source.ID }) {
		if err := b.VMs.Remove(ctx, vm.ID, true); err != nil && banger.CodeOf(err) != banger.CodeNotFound {
			return removed, err
		}
		removed = append(removed, vm)
	}
	return removed, nil
}
