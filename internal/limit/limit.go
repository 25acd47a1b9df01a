// Package limit says how much of the host one VM may use, and keeps it to that with a control group. It must not know
// how a VM is run.
package limit

import (
	"errors"
	"os"

	"banger"
	"banger/internal/cgroup"
)

// What the processes of one VM may use together, in addition to what its guest has. The additional CPU is for its
// devices and its network.
const (
	besideGuest    = 256 << 20 // bytes for the shim and the VMM
	besideEmulated = 1 << 30   // maximum bytes of QEMU's translated code (accel/tcg/region.c)
	besideCPUs     = 1
	maxTasks       = 1024
)

// Groups are the control groups of VMs. Without a tree they limit nothing, because the host has none for VMs.
type Groups struct {
	Tree     *cgroup.Tree
	Emulated bool // VMs run without KVM, which needs more memory
}

// limits returns what a VM may use.
func (g Groups) limits(spec banger.Spec) cgroup.Limits {
	l := cgroup.Limits{Memory: spec.Memory + besideGuest, CPUs: spec.CPUs + besideCPUs, Tasks: maxTasks}
	if g.Emulated {
		l.Memory += besideEmulated
	}
	return l
}

// Join makes a VM's control group, whose descriptor the caller must close, and returns the limits that are in force.
// Both are nil if the host has no control groups for VMs. Remove removes the group.
func (g Groups) Join(id string, spec banger.Spec) (*os.File, *banger.Limits, error) {
	if g.Tree == nil {
		return nil, nil, nil
	}
	want := g.limits(spec)
	f, err := g.Tree.Make(id, want)
	if err != nil {
		return nil, nil, banger.Errorf(banger.CodeUnavailable, "cannot limit what the VM may use: %w", err).
			WithHint("see: banger doctor")
	}
	l := g.Tree.InForce(want)
	if l == (cgroup.Limits{}) {
		return f, nil, nil
	}
	return f, &banger.Limits{Memory: l.Memory, CPUs: l.CPUs, Tasks: l.Tasks}, nil
}

// Remove ends all remaining processes of a VM that has ended, and removes its group.
func (g Groups) Remove(id string) error {
	if g.Tree == nil {
		return nil
	}
	return g.Tree.Remove(id)
}

// Path returns the path of a VM's group in the hierarchy, or "".
func (g Groups) Path(id string) string {
	if g.Tree == nil {
		return ""
	}
	return g.Tree.Path(id)
}

// OutOfMemory returns the end of a sentence if a VM was ended by its own memory limit, otherwise "".
func (g Groups) OutOfMemory(vm banger.VM) string {
	if g.Tree != nil && g.Tree.OutOfMemory(vm.ID) {
		return ", for more memory than its limit of " + banger.FormatSize(g.limits(vm.Spec).Memory)
	}
	return ""
}

// Sweep removes the groups of all VMs that are not in claimed.
func (g Groups) Sweep(claimed map[string]bool) error {
	if g.Tree == nil {
		return nil
	}
	names, err := g.Tree.Names()
	for _, name := range names {
		if !claimed[name] {
			err = errors.Join(err, g.Tree.Remove(name))
		}
	}
	return err
}
