package supervisor

import (
	"errors"
	"os"

	"banger"
	"banger/internal/cgroup"
)

// What the processes of one VM may use together, beside what its guest has. A CPU more than
// the guest's is for its devices and its network.
const (
	besideGuest    = 256 << 20 // bytes of the shim and the VMM
	besideEmulated = 1 << 30   // bytes of translated code that QEMU keeps at most (accel/tcg/region.c)
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

// joinGroup makes the VM's control group, where there are any, for the caller to close;
// leaveGroup removes it.
func (m *machine) joinGroup(spec banger.Spec) (*os.File, error) {
	groups := m.s.opts.Groups
	if groups == nil {
		return nil, nil
	}
	want := m.s.limits(spec)
	f, err := groups.Make(m.id(), want)
	if err != nil {
		return nil, banger.Errorf(banger.CodeUnavailable, "cannot limit what the VM may use: %w", err).WithHint("see: banger doctor")
	}
	if l := groups.InForce(want); l != (cgroup.Limits{}) {
		m.update(func(vm *banger.VM) { vm.Limits = &banger.Limits{Memory: l.Memory, CPUs: l.CPUs, Tasks: l.Tasks} })
	}
	return f, nil
}

// leaveGroup ends whatever is left of a VM that has ended.
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

// outOfMemory says that the VM's own limit has ended it, if so.
func (m *machine) outOfMemory() string {
	if g := m.s.opts.Groups; g != nil && g.OutOfMemory(m.id()) {
		return ", for more memory than its limit of " + banger.FormatSize(m.s.limits(m.snapshot().Spec).Memory)
	}
	return ""
}

// sweepGroups removes the groups of VMs that are not claimed.
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
