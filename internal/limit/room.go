package limit

import (
	"fmt"

	"banger"
)

// mostCPUs returns how many CPUs a VM may have on a host with n. More than n CPUs are slow, and with many more the
// guest does not boot in time.
func mostCPUs(n int) int { return max(8, 4*n) }

// Host is what a host has. 0 means unknown.
type Host struct {
	Memory int64 // bytes
	CPUs   int

	Emulated bool // VMs run without KVM
}

// Check rejects a spec that this host can never satisfy, and warns about one that it can satisfy only slowly, or
// whose VM is to hold what nobody has read, behind an emulator. It has no other effect.
func (h Host) Check(spec banger.Spec, emit banger.Emit) error {
	cpus := h.CPUs
	if spec.Untrusted && h.Emulated {
		emit(banger.Event{Stage: "warning", Text: "the VM is emulated, because this host has no usable KVM; " +
			"an emulator is no boundary against hostile code (see: banger doctor)"})
	}
	switch {
	case h.Memory > 0 && spec.Memory > h.Memory:
		return banger.Errorf(banger.CodeInvalid, "memory is %s, but this host has %s", banger.FormatSize(spec.Memory),
			banger.FormatSize(h.Memory)).
			WithHint("ask for less: --memory")
	case cpus > 0 && spec.CPUs > mostCPUs(cpus):
		return banger.Errorf(banger.CodeInvalid, "cpus is %d, but this host has %d, and a VM may have at most %d here",
			spec.CPUs, cpus, mostCPUs(cpus)).
			WithHint("ask for fewer: --cpus")
	case cpus > 0 && spec.CPUs > cpus:
		emit(banger.Event{Stage: "warning",
			Text: fmt.Sprintf("the VM has %d CPUs and this host %d, so it will be slow", spec.CPUs, cpus)})
	}
	return nil
}
