package cli

import (
	"strings"
	"testing"

	"banger/internal/api"
)

// TestWhereQEMUIsNeeded: without it no VM starts, unless the daemon can use Firecracker.
func TestWhereQEMUIsNeeded(t *testing.T) {
	usable := api.VMM{Name: "firecracker", Path: "/usr/bin/firecracker", Version: "1.16.1", Warning: "a fault that is gone round"}
	missing := api.VMM{Name: "qemu", Problem: "qemu-system-x86_64 is not installed"}
	for name, c := range map[string]struct {
		installed bool
		vmms      []api.VMM
		result    string
		detail    string
	}{
		"it is there":                    {true, []api.VMM{missing}, pass, "/usr/bin/qemu-system-x86_64"},
		"Firecracker does everything":    {false, []api.VMM{usable, missing}, warn, "not installed; Firecracker runs VMs here, and QEMU would add"},
		"Firecracker cannot be used":     {false, []api.VMM{{Name: "firecracker", Problem: "it needs KVM"}, missing}, fail, "not installed; it runs VMs"},
		"QEMU alone is known":            {false, []api.VMM{missing}, fail, "not installed; it runs VMs"},
		"the daemon does not answer":     {false, nil, fail, "not installed; it runs VMs"},
		"another VMM is said to be fine": {false, []api.VMM{{Name: "qemu"}}, fail, "not installed; it runs VMs"},
	} {
		t.Run(name, func(t *testing.T) {
			got := checkQEMU("/usr/bin/qemu-system-x86_64", c.installed, c.vmms)
			if got.Name != "qemu-system-x86_64" || got.Result != c.result || !strings.HasPrefix(got.Detail, c.detail) || (got.Fix == "") != (c.result == pass) {
				t.Errorf("the line is %+v", got)
			}
		})
	}
}
