package supervisor

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

// groups are the control groups of VMs. Without a tree they limit nothing, because the host has none for VMs.
type groups struct {
	tree     *cgroup.Tree
	emulated bool
}

// limits returns what a VM may use.
func (g groups) limits(spec banger.Spec) cgroup.Limits {
	l := cgroup.Limits{Memory: spec.Memory + besideGuest, CPUs: spec.CPUs + besideCPUs, Tasks: maxTasks}
	if g.emulated {
		l.Memory += besideEmulated
	}
	return l
}

// join makes a VM's control group, whose descriptor the caller must close, and returns the limits that are in force.
// Both are nil if the host has no control groups for VMs. remove removes the group.
func (g groups) join(id string, spec banger.Spec) (*os.File, *banger.Limits, error) {
	if g.tree == nil {
		return nil, nil, nil
	}
	want := g.limits(spec)
	f, err := g.tree.Make(id, want)
	if err != nil {
		return nil, nil, banger.Errorf(banger.CodeUnavailable, "cannot limit what the VM may use: %w", err).
			WithHint("see: banger doctor")
	}
	l := g.tree.InForce(want)
	if l == (cgroup.Limits{}) {
		return f, nil, nil
	}
	return f, &banger.Limits{Memory: l.Memory, CPUs: l.CPUs, Tasks: l.Tasks}, nil
}

// remove ends all remaining processes of a VM that has ended, and removes its group.
func (g groups) remove(id string) error {
	if g.tree == nil {
		return nil
	}
	return g.tree.Remove(id)
}

// path returns the path of a VM's group in the hierarchy, or "".
func (g groups) path(id string) string {
	if g.tree == nil {
		return ""
	}
	return g.tree.Path(id)
}

// outOfMemory returns the end of a sentence if a VM was ended by its own memory limit, otherwise "".
func (g groups) outOfMemory(vm banger.VM) string {
	if g.tree != nil && g.tree.OutOfMemory(vm.ID) {
		return ", for more memory than its limit of " + banger.FormatSize(g.limits(vm.Spec).Memory)
	}
	return ""
}

// sweep removes the groups of all VMs that are not in claimed.
func (g groups) sweep(claimed map[string]bool) error {
	if g.tree == nil {
		return nil
	}
	names, err := g.tree.Names()
	for _, name := range names {
		if !claimed[name] {
			err = errors.Join(err, g.tree.Remove(name))
		}
	}
	return err
}

// leaveGroup ends all remaining processes of a VM that has ended, and removes its group.
func (m *machine) leaveGroup() {
	m.warn("the control group was not removed", m.s.groups().remove(m.id()))
	m.update(func(vm *banger.VM) { vm.Limits = nil })
}
