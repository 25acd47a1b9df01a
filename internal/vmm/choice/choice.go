// Package choice finds the VMM that can run a VM on this host. It must not know any VMM by name, nor how one is run.
package choice

import (
	"context"
	"errors"

	"banger"
	"banger/internal/vmm"
)

// VMM is what is known of a driver before it runs.
type VMM struct {
	Name string
	// Find returns the program and its version; an error says why it cannot be used.
	Find      func(context.Context) (path, version string, err error)
	Package   string            // what to install
	NeedsKVM  bool              // it does not emulate
	OpensTaps bool              // its network is a tap that it opens by name
	Sockets   bool              // it makes unix sockets of its own
	Options   map[string]string // of its driver
	Reads     []string          // files that these name
	// CheckCPU returns an error if the program at path cannot give a guest the CPU called model; nil: a VM's CPU
	// cannot be chosen, and its guest cannot run VMs of its own.
	CheckCPU func(ctx context.Context, path, model string, accel vmm.Accel) error
	// Jailer returns the options by which a daemon of root puts it into a jail below a
	// directory, as a user, in a control group, or why it cannot; nil: there is no such thing.
	Jailer func(ctx context.Context, path, version, dir string, uid, gid uint32, group string) (map[string]string, error)
}

// Host is which VMMs there are, and what this host can do.
type Host struct {
	VMMs   []VMM        // in order of preference
	KVM    bool         // KVM executes guests here
	NoKVM  string       // why not
	Nested func() error // why KVM's guests cannot run VMs here; nil: they can
}

// Chosen is the VMM that a VM starts on, as it is installed.
type Chosen struct {
	VMM
	Path, Version string
}

// String returns the VMM's name and version.
func (c Chosen) String() string { return c.Name + " " + c.Version }

// Choose returns the VMM for the wish in a Spec: the one that it names, or the first
// that can run it here.
func (h Host) Choose(ctx context.Context, spec banger.Spec) (Chosen, error) {
	var why error
	for _, v := range h.VMMs {
		if spec.VMM != banger.VMMAuto && spec.VMM != v.Name {
			continue
		}
		err := h.suits(v, spec)
		if err == nil {
			var c Chosen
			if c, err = find(ctx, v); err == nil {
				return c, h.checkCPU(ctx, c, spec)
			}
		}
		why = err // the last is the one that suits most hosts
	}
	if why == nil {
		why = banger.Errorf(banger.CodeUnavailable, "there is no VMM called %q here", spec.VMM)
	}
	return Chosen{}, why
}

// suits says why a VMM cannot run spec on this host, whether it is installed or not.
func (h Host) suits(v VMM, spec banger.Spec) error {
	if v.NeedsKVM && !h.KVM {
		return banger.Errorf(banger.CodeUnavailable, "%s needs KVM: %w", v.Name, errors.New(h.NoKVM)).
			WithHint("use --vmm=qemu, which emulates, or leave it out")
	}
	if (spec.Nested != "" || spec.CPUModel != "") && v.CheckCPU == nil {
		return banger.Errorf(banger.CodeUnavailable, "%s gives a guest the host's CPU, without virtualisation of its own",
			v.Name).
			WithHint("use --vmm=qemu, or leave it out")
	}
	if spec.Nested != "" && h.KVM {
		if err := h.Nested(); err != nil {
			return banger.Errorf(banger.CodeUnavailable, "guests cannot run VMs of their own here: %w", err)
		}
	}
	return nil
}

// checkCPU refuses a CPU model that the Chosen VMM does not have.
func (h Host) checkCPU(ctx context.Context, c Chosen, spec banger.Spec) error {
	if spec.CPUModel == "" {
		return nil
	}
	if err := c.CheckCPU(ctx, c.Path, spec.CPUModel, h.Accel()); err != nil {
		return banger.Errorf(banger.CodeInvalid, "the VM cannot have this CPU: %w", err)
	}
	return nil
}

// Accel is what executes guests on this host.
func (h Host) Accel() vmm.Accel {
	if h.KVM {
		return vmm.AccelKVM
	}
	return vmm.AccelTCG
}

func find(ctx context.Context, v VMM) (Chosen, error) {
	path, version, err := v.Find(ctx)
	if err != nil {
		return Chosen{}, banger.Errorf(banger.CodeUnavailable, "no VM can be started: %w", err).
			WithHint("install it: %s", v.Package)
	}
	return Chosen{v, path, version}, nil
}
