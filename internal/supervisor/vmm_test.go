package supervisor_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"banger"
	"banger/internal/supervisor"
)

// TestWhichVMM runs a VM: the one that is asked for, or the first that can.
func TestWhichVMM(t *testing.T) {
	found := func(version string) func(context.Context) (string, string, error) {
		return func(context.Context) (string, string, error) { return "/bin/vmm", version, nil }
	}
	absent := func(why string) func(context.Context) (string, string, error) {
		return func(context.Context) (string, string, error) { return "", "", errors.New(why) }
	}
	fast := supervisor.VMM{Name: "firecracker", Find: found("1.16.1"), NeedsKVM: true, OpensTaps: true, Package: "get it there"}
	slow := supervisor.VMM{Name: "qemu", Find: found("7.2"), Package: "apt-get install it"}
	old := fast
	old.Find = absent("Firecracker 1.12.0 is too old")
	gone := slow
	gone.Find = absent("qemu is not installed")
	for name, c := range map[string]struct {
		vmms          []supervisor.VMM
		kvm           bool
		wish, network string
		want          string // what the VM runs on, or a part of the error
		code          banger.Code
	}{
		"with KVM the preferred one":      {[]supervisor.VMM{fast, slow}, true, "auto", "user", "firecracker 1.16.1", ""},
		"without, the one that emulates":  {[]supervisor.VMM{fast, slow}, false, "auto", "user", "qemu 7.2", ""},
		"one too old is passed over":      {[]supervisor.VMM{old, slow}, true, "auto", "user", "qemu 7.2", ""},
		"what is asked for":               {[]supervisor.VMM{fast, slow}, true, "qemu", "user", "qemu 7.2", ""},
		"asked for without KVM":           {[]supervisor.VMM{fast, slow}, false, "firecracker", "user", "firecracker needs KVM: no /dev/kvm (use --vmm=qemu", banger.CodeUnavailable},
		"asked for, and too old":          {[]supervisor.VMM{old, slow}, true, "firecracker", "user", "1.12.0 is too old (install it: get it there)", banger.CodeUnavailable},
		"none is there":                   {[]supervisor.VMM{old, gone}, true, "auto", "user", "qemu is not installed (install it: apt-get", banger.CodeUnavailable},
		"one that this banger has not":    {[]supervisor.VMM{slow}, true, "firecracker", "user", `no VMM called "firecracker"`, banger.CodeUnavailable},
		"no network suits every VMM here": {[]supervisor.VMM{fast, slow}, true, "auto", "none", "firecracker 1.16.1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.opts.VMMs, h.opts.KVM, h.opts.NoKVM = c.vmms, c.kvm, "no /dev/kvm"
			spec := h.spec("box")
			spec.VMM, spec.Network = c.wish, c.network
			vm, err := h.daemon().Create(h.ctx(), spec, false, banger.Discard)
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
