package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"banger"
	"banger/internal/vmm"
	"banger/internal/vmm/choice"
)

// TestWhichCPU checks that a CPU model and nested virtualisation are accepted only for a VMM that supports them. What
// the host cannot give is rejected before any effect.
func TestWhichCPU(t *testing.T) {
	found := func(context.Context) (string, string, error) { return "/bin/vmm", "1", nil }
	only := func(_ context.Context, path, model string, accel vmm.Accel) error {
		if path != "/bin/vmm" || model != "EPYC" {
			return fmt.Errorf("there is no %s for %s", model, accel)
		}
		return nil
	}
	fast := choice.VMM{Name: "firecracker", Find: found, NeedsKVM: true}
	slow := choice.VMM{Name: "qemu", Find: found, CheckCPU: only}
	for name, c := range map[string]struct {
		kvm    bool
		nested error // the error of the host's KVM, or nil
		spec   banger.Spec
		want   string // VMM of the VM, or a part of the error
		code   banger.Code
	}{
		"nothing asked for": {true, nil, banger.Spec{}, "firecracker 1", ""},
		"nested":            {true, nil, banger.Spec{Nested: "on"}, "qemu 1", ""},
		"nested, emulated":  {false, errors.New("never asked"), banger.Spec{Nested: "on"}, "qemu 1", ""},
		"nested, and KVM does not": {true, errors.New("load it with nested=1"), banger.Spec{Nested: "on"},
			"load it with nested=1", banger.CodeUnavailable},
		"nested on Firecracker": {true, nil, banger.Spec{Nested: "on", VMM: "firecracker"}, "use --vmm=qemu",
			banger.CodeInvalid},
		"nested and untrusted": {true, nil, banger.Spec{Nested: "on", Untrusted: true}, "--nested=force",
			banger.CodeInvalid},
		"nested and untrusted, by force": {true, nil, banger.Spec{Nested: "force", Untrusted: true}, "qemu 1", ""},
		"nested, in a word that is none": {true, nil, banger.Spec{Nested: "yes"}, `nested is "yes"`, banger.CodeInvalid},
		"a model":                        {true, nil, banger.Spec{CPUModel: "EPYC"}, "qemu 1", ""},
		"a model on Firecracker": {true, nil, banger.Spec{CPUModel: "EPYC", VMM: "firecracker"}, "use --vmm=qemu",
			banger.CodeInvalid},
		"a model that is not there": {true, nil, banger.Spec{CPUModel: "i386"}, "there is no i386 for kvm",
			banger.CodeInvalid},
		"a model that is an option too": {true, nil, banger.Spec{CPUModel: "EPYC -S"}, "cpu_model is", banger.CodeInvalid},
		"a model with another's property": {true, nil, banger.Spec{CPUModel: "EPYC,vendor=x"}, "cpu_model is",
			banger.CodeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.opts.VMMs.VMMs, h.opts.VMMs.KVM, h.opts.VMMs.Nested = []choice.VMM{fast, slow}, c.kvm,
				func() error { return c.nested }
			spec := h.spec("box")
			spec.CPUModel, spec.Nested, spec.VMM, spec.Untrusted = c.spec.CPUModel, c.spec.Nested, c.spec.VMM, c.spec.Untrusted
			vm, err := h.daemon().Create(h.ctx(), spec, nil, false, banger.Discard)
			if c.code == "" {
				if err != nil || vm.VMM != c.want {
					t.Errorf("it runs on %q, %v, not on %s", vm.VMM, err, c.want)
				}
				return
			}
			wantCode(t, err, c.code)
			if err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, not one with %q", err, c.want)
			}
		})
	}
}

// TestWhichVMM checks that the requested VMM runs a VM, or else the first usable one.
func TestWhichVMM(t *testing.T) {
	found := func(version string) func(context.Context) (string, string, error) {
		return func(context.Context) (string, string, error) { return "/bin/vmm", version, nil }
	}
	absent := func(why string) func(context.Context) (string, string, error) {
		return func(context.Context) (string, string, error) { return "", "", errors.New(why) }
	}
	fast := choice.VMM{Name: "firecracker", Find: found("1.16.1"), NeedsKVM: true, OpensTaps: true,
		Package: "get it there"}
	slow := choice.VMM{Name: "qemu", Find: found("7.2"), Package: "apt-get install it"}
	old := fast
	old.Find = absent("Firecracker 1.12.0 is too old")
	gone := slow
	gone.Find = absent("qemu is not installed")
	for name, c := range map[string]struct {
		vmms          []choice.VMM
		kvm           bool
		wish, network string
		want          string // VMM of the VM, or a part of the error
		code          banger.Code
	}{
		"with KVM the preferred one":     {[]choice.VMM{fast, slow}, true, "auto", "user", "firecracker 1.16.1", ""},
		"without, the one that emulates": {[]choice.VMM{fast, slow}, false, "auto", "user", "qemu 7.2", ""},
		"one too old is passed over":     {[]choice.VMM{old, slow}, true, "auto", "user", "qemu 7.2", ""},
		"what is asked for":              {[]choice.VMM{fast, slow}, true, "qemu", "user", "qemu 7.2", ""},
		"asked for without KVM": {[]choice.VMM{fast, slow}, false, "firecracker", "user",
			"firecracker needs KVM: no /dev/kvm (use --vmm=qemu", banger.CodeUnavailable},
		"asked for, and too old": {[]choice.VMM{old, slow}, true, "firecracker", "user",
			"1.12.0 is too old (install it: get it there)", banger.CodeUnavailable},
		"none is there": {[]choice.VMM{old, gone}, true, "auto", "user",
			"qemu is not installed (install it: apt-get", banger.CodeUnavailable},
		"one that this banger has not": {[]choice.VMM{slow}, true, "firecracker", "user", `no VMM called "firecracker"`,
			banger.CodeUnavailable},
		"no network suits every VMM here": {[]choice.VMM{fast, slow}, true, "auto", "none", "firecracker 1.16.1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.opts.VMMs.VMMs, h.opts.VMMs.KVM, h.opts.VMMs.NoKVM = c.vmms, c.kvm, "no /dev/kvm"
			spec := h.spec("box")
			spec.VMM, spec.Network = c.wish, c.network
			vm, err := h.daemon().Create(h.ctx(), spec, nil, false, banger.Discard)
			if c.code == "" {
				if err != nil || vm.VMM != c.want {
					t.Errorf("it runs on %q, %v, not on %s", vm.VMM, err, c.want)
				}
				return
			}
			wantCode(t, err, c.code)
			if err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, not one with %q", err, c.want)
			}
		})
	}
}
