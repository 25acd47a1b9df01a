// Package choice finds the VMM that can run a VM on this host. It must not know any VMM by name,
// nor how a VMM is run.
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
	// Find returns the program and its version. An error says why the VMM cannot be used.
	Find      func(context.Context) (path, version string, err error)
	Package   string // the package to install
	NeedsKVM  bool   // the VMM does not emulate
	OpensTaps bool   // the VMM opens its tap by name
	Sockets   bool   // the VMM creates unix sockets
	Templates bool   // VMs can start from a snapshot that others share
	// SealedMemory says that the VMM opens the memory of such a snapshot for writing, though it does not write.
	SealedMemory bool
	// Overlays says that disks may be overlays, and that a VM can be written down and go on.
	Overlays bool
	Options  map[string]string // for the driver
	Reads    []string          // files that the options name
	// CheckCPU returns an error if the program at path cannot give a guest the CPU called model. If
	// CheckCPU is nil, a VM's CPU cannot be chosen, and its guest cannot run VMs.
	CheckCPU func(ctx context.Context, path, model string, accel vmm.Accel) error
	// Jailer returns the options with which a daemon that runs as root starts the VMM in a jail below
	// dir, as a user, in a control group. An error says why that is not possible. If Jailer is nil,
	// the VMM has no jail.
	Jailer func(ctx context.Context, path, version, dir string, uid, gid uint32, group string) (map[string]string, error)
}

// Host describes the known VMMs and the abilities of this host.
type Host struct {
	VMMs   []VMM        // in order of preference
	KVM    bool         // KVM executes guests here
	NoKVM  string       // why KVM does not
	Nested func() error // returns why guests of KVM cannot run VMs here; nil if they can
}

// Chosen is the VMM that a VM starts on, as it is installed.
type Chosen struct {
	VMM
	Path, Version string
}

// String returns the VMM's name and version.
func (c Chosen) String() string { return c.Name + " " + c.Version }

// Choose returns the VMM for spec: the one that spec names, or the first one that can run it here.
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
		why = err // the reason of the last VMM stays: it is the one that suits most hosts
	}
	if why == nil {
		why = banger.Errorf(banger.CodeUnavailable, "there is no VMM called %q here", spec.VMM)
	}
	return Chosen{}, why
}

// suits returns an error that says why v cannot run spec on this host. It does not check whether v
// is installed.
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

// checkCPU returns an error if the chosen VMM does not have the CPU model of spec.
func (h Host) checkCPU(ctx context.Context, c Chosen, spec banger.Spec) error {
	if spec.CPUModel == "" {
		return nil
	}
	if err := c.CheckCPU(ctx, c.Path, spec.CPUModel, h.Accel()); err != nil {
		return banger.Errorf(banger.CodeInvalid, "the VM cannot have this CPU: %w", err)
	}
	return nil
}

// Accel returns what executes guest code on this host.
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

// Isolation returns what separates a guest from this host.
func (h Host) Isolation() string {
	if h.KVM {
		return banger.IsolationKVM
	}
	return banger.IsolationEmulated
}
