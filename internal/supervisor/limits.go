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

func (s *Supervisor) limits(spec banger.Spec) cgroup.Limits {
	l := cgroup.Limits{Memory: spec.Memory + besideGuest, CPUs: spec.CPUs + besideCPUs, Tasks: maxTasks}
	if !s.opts.VMMs.KVM {
		l.Memory += besideEmulated
	}
	return l
}

// joinGroup makes the VM's control group, which the caller must close and leaveGroup removes. It returns nil if the
// host has no control groups for VMs.
func (m *machine) joinGroup(spec banger.Spec) (*os.File, error) {
	groups := m.s.opts.Groups
	if groups == nil {
		return nil, nil
	}
	want := m.s.limits(spec)
	f, err := groups.Make(m.id(), want)
	if err != nil {
		return nil, banger.Errorf(banger.CodeUnavailable, "cannot limit what the VM may use: %w", err).
			WithHint("see: banger doctor")
	}
	if l := groups.InForce(want); l != (cgroup.Limits{}) {
		m.update(func(vm *banger.VM) { vm.Limits = &banger.Limits{Memory: l.Memory, CPUs: l.CPUs, Tasks: l.Tasks} })
	}
	return f, nil
}

// leaveGroup ends all remaining processes of a VM that has ended, and removes its group.
func (m *machine) leaveGroup() {
	m.s.removeGroup(m.id())
	m.update(func(vm *banger.VM) { vm.Limits = nil })
}

func (s *Supervisor) removeGroup(id string) error {
	if s.opts.Groups == nil {
		return nil
	}
	return s.opts.Groups.Remove(id)
}

// outOfMemory returns the end of a sentence if the VM was ended by its own memory limit, otherwise "".
func (m *machine) outOfMemory() string {
	if g := m.s.opts.Groups; g != nil && g.OutOfMemory(m.id()) {
		return ", for more memory than its limit of " + banger.FormatSize(m.s.limits(m.snapshot().Spec).Memory)
	}
	return ""
}

// sweepGroups removes the groups of all VMs that are not in claimed.
func (s *Supervisor) sweepGroups(claimed map[string]bool) error {
	if s.opts.Groups == nil {
		return nil
	}
	names, err := s.opts.Groups.Names()
	for _, name := range names {
		if !claimed[name] {
			err = errors.Join(err, s.removeGroup(name))
		}
	}
	return err
}
