package supervisor

import (
	"context"
	"errors"
	"maps"

	"banger"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// chosen is the VMM that a VM starts on.
type chosen struct {
	VMM
	path, version string
}

func (c chosen) String() string { return c.Name + " " + c.version }

// chooseVMM returns the VMM for the wish in a Spec: the one that it names, or the first
// that can run it here.
func (s *Supervisor) chooseVMM(ctx context.Context, spec banger.Spec) (chosen, error) {
	var why error
	for _, v := range s.opts.VMMs {
		if spec.VMM != banger.VMMAuto && spec.VMM != v.Name {
			continue
		}
		err := s.suits(v, spec)
		if err == nil {
			var c chosen
			if c, err = find(ctx, v); err == nil {
				return c, s.checkCPU(ctx, c, spec)
			}
		}
		why = err // the last is the one that suits most hosts
	}
	if why == nil {
		why = banger.Errorf(banger.CodeUnavailable, "there is no VMM called %q here", spec.VMM)
	}
	return chosen{}, why
}

// suits says why a VMM cannot run spec on this host, whether it is installed or not.
func (s *Supervisor) suits(v VMM, spec banger.Spec) error {
	if v.NeedsKVM && !s.opts.KVM {
		return banger.Errorf(banger.CodeUnavailable, "%s needs KVM: %w", v.Name, errors.New(s.opts.NoKVM)).WithHint("use --vmm=qemu, which emulates, or leave it out")
	}
	if (spec.Nested != "" || spec.CPUModel != "") && v.CheckCPU == nil {
		return banger.Errorf(banger.CodeUnavailable, "%s gives a guest the host's CPU, without virtualisation of its own", v.Name).
			WithHint("use --vmm=qemu, or leave it out")
	}
	if spec.Nested != "" && s.opts.KVM {
		if err := s.opts.Nested(); err != nil {
			return banger.Errorf(banger.CodeUnavailable, "guests cannot run VMs of their own here: %w", err)
		}
	}
	return nil
}

// checkCPU refuses a CPU model that the chosen VMM does not have.
func (s *Supervisor) checkCPU(ctx context.Context, c chosen, spec banger.Spec) error {
	if spec.CPUModel == "" {
		return nil
	}
	if err := c.CheckCPU(ctx, c.path, spec.CPUModel, s.accel()); err != nil {
		return banger.Errorf(banger.CodeInvalid, "the VM cannot have this CPU: %w", err)
	}
	return nil
}

// accel is what executes guests on this host.
func (s *Supervisor) accel() vmm.Accel {
	if s.opts.KVM {
		return vmm.AccelKVM
	}
	return vmm.AccelTCG
}

func find(ctx context.Context, v VMM) (chosen, error) {
	path, version, err := v.Find(ctx)
	if err != nil {
		return chosen{}, banger.Errorf(banger.CodeUnavailable, "no VM can be started: %w", err).WithHint("install it: %s", v.Package)
	}
	return chosen{v, path, version}, nil
}

// jail returns the options of a VM's driver, and the jail that its VMM is put into, where
// there is a jailer for it and the daemon is root; else it is confined without.
func (s *Supervisor) jail(ctx context.Context, c chosen, vm string, id shim.Identity) (map[string]string, *shim.Jail) {
	if !s.opts.Root || c.Jailer == nil {
		return c.Options, nil
	}
	group := ""
	if s.opts.Groups != nil {
		group = s.opts.Groups.Path(vm)
	}
	more, err := c.Jailer(ctx, c.path, c.version, s.jailDir(), id.UID, id.GID, group)
	if err != nil {
		return c.Options, nil // doctor says so
	}
	options := map[string]string{}
	maps.Copy(options, c.Options)
	maps.Copy(options, more)
	return options, &shim.Jail{UID: int(id.UID), GID: int(id.GID), Dir: s.jailDir()}
}
