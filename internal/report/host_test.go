package report

import (
	"strings"
	"testing"

	"banger/internal/api/wire"
)

// TestDoctorShowsNested checks that doctor says which VMM gives the guests virtualisation, or why none does.
func TestDoctorShowsNested(t *testing.T) {
	for name, c := range map[string]struct {
		version wire.Version
		result  string
		words   string
	}{
		"KVM":      {wire.Version{KVM: "usable"}, wire.Pass, "by this host's KVM"},
		"emulated": {wire.Version{KVM: "there is no /dev/kvm"}, wire.Pass, "emulated"},
		"KVM does not nest": {wire.Version{KVM: "usable", NestedProblem: "load it with nested=1"}, wire.Warn,
			"load it with nested=1"},
	} {
		if got := checkNested(c.version); got.Name != "nested" || got.Result != c.result ||
			!strings.Contains(got.Detail, c.words) {
			t.Errorf("%s: doctor says %+v", name, got)
		}
	}
}

// TestWhereQEMUIsNeeded checks that a missing QEMU is a failure, unless the daemon can use Firecracker.
func TestWhereQEMUIsNeeded(t *testing.T) {
	usable := wire.VMM{Name: "firecracker", Path: "/usr/bin/firecracker", Warning: "a fault that is gone round"}
	unusable := wire.VMM{Name: "firecracker", Problem: "it needs KVM"}
	missing := wire.VMM{Name: "qemu", Problem: "qemu-system-x86_64 is not installed"}
	for name, c := range map[string]struct {
		installed bool
		vmms      []wire.VMM
		result    string
		detail    string
	}{
		"it is there": {true, []wire.VMM{missing}, wire.Pass, "/usr/bin/qemu-system-x86_64"},
		"Firecracker does everything": {false, []wire.VMM{usable, missing}, wire.Warn,
			"not installed; Firecracker runs VMs here"},
		"Firecracker cannot be used":     {false, []wire.VMM{unusable, missing}, wire.Fail, "not installed; it runs VMs"},
		"QEMU alone is known":            {false, []wire.VMM{missing}, wire.Fail, "not installed; it runs VMs"},
		"the daemon does not answer":     {false, nil, wire.Fail, "not installed; it runs VMs"},
		"another VMM is said to be fine": {false, []wire.VMM{{Name: "qemu"}}, wire.Fail, "not installed; it runs VMs"},
	} {
		t.Run(name, func(t *testing.T) {
			got := checkQEMU("/usr/bin/qemu-system-x86_64", c.installed, c.vmms)
			if got.Name != "qemu-system-x86_64" || got.Result != c.result || !strings.HasPrefix(got.Detail, c.detail) {
				t.Errorf("the line is %+v", got)
			}
			if (got.Fix == "") != (c.result == wire.Pass) {
				t.Errorf("the fix is %q", got.Fix)
			}
		})
	}
}
