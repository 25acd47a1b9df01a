package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// CheckNested returns nil if this host's KVM allows its guests to run VMs. Otherwise the error is one sentence that
// names the parameter of the kernel's module (Linux, Documentation/virt/kvm/x86/running-nested-guests.rst).
func CheckNested() error { return checkNested("/sys/module") }

// checkNested looks at the modules below dir. One of the two is loaded where KVM works.
func checkNested(dir string) error {
	for _, module := range []string{"kvm_intel", "kvm_amd"} {
		data, err := os.ReadFile(filepath.Join(dir, module, "parameters", "nested"))
		if err != nil {
			continue
		}
		switch strings.TrimSpace(string(data)) {
		case "Y", "1":
			return nil
		}
		return fmt.Errorf("the module %[1]s of this host does not let guests run VMs; load it with nested=1: "+
			"echo 'options %[1]s nested=1' | sudo tee /etc/modprobe.d/banger-nested.conf, and restart the host", module)
	}
	return errors.New(
		"this host has neither the module kvm_intel nor kvm_amd, so its KVM does not tell whether guests can run VMs")
}
