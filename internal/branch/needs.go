package branch

import (
	"context"
	"io"

	"banger"
)

// Needs are the VMs and the snapshots of a daemon, for those who keep the images and kernels that these need.
type Needs struct {
	VMs interface {
		List(keep func(banger.VM) bool) []banger.VM
	}
	// Running returns the changes of a running VM, as library.VMs says.
	Running  func(ctx context.Context, ref string) (banger.VM, io.ReadCloser, error)
	Branches func() *Branches // called when they are there
}

// Changes returns the changes of a running VM, as library.VMs says.
func (n Needs) Changes(ctx context.Context, ref string) (banger.VM, io.ReadCloser, error) {
	return n.Running(ctx, ref)
}

// List returns the VMs for which keep is true, and a VM for each snapshot for which keep is true of what it was taken
// of: with the image, the kernel and the initramfs that it needs.
func (n Needs) List(keep func(banger.VM) bool) []banger.VM {
	list := n.VMs.List(keep)
	b := n.Branches()
	all, err := b.History.List()
	if err != nil {
		b.Log.Warn("the snapshots cannot be read", "err", err)
	}
	for _, w := range all {
		vm := w.Machine
		vm.Name, vm.State = banger.SnapshotUser+w.Name, banger.StateSuspended
		if keep(vm) {
			list = append(list, vm)
		}
	}
	return list
}
