package parking

import (
	"time"

	"banger"
)

// Updated returns a VM with what a user wants to change. Sizes wait for the next boot, because the VMM of a VM that
// runs, and the memory of a suspended one, have those of now.
func Updated(vm banger.VM, u banger.Update, now time.Time) (banger.VM, error) {
	vm.Spec = setFuture(vm.Spec, u)
	if u.TTL != nil {
		vm.Expired = false
		if vm.LivesSince.IsZero() && !vm.State.AtRest() { // its row was made again, from a record
			vm.LivesSince = now.UTC()
		}
		if at := over(vm); !at.IsZero() && !at.After(now) && changes(u.TTL.Action, vm.State) {
			return vm, banger.Errorf(banger.CodeInvalid, "VM %s was started %s ago, so this time to live is over already",
				vm.Name, now.Sub(vm.LivesSince).Round(time.Second)).WithHint("a time to live counts from the start of the VM")
		}
	}
	if !vm.Spec.Restart.Active() {
		vm.RestartAt = time.Time{}
	}
	if u.CPUs != nil && *u.CPUs < 1 || u.Memory != nil && *u.Memory < 1 { // zero would mean the default
		return vm, banger.Errorf(banger.CodeInvalid, "cpus and memory must be above zero")
	}
	spec := resized(AtNextBoot(vm), u)
	if err := spec.Normalize(); err != nil {
		return vm, err
	}
	vm.Next = nil
	if vm.State.AtRest() {
		vm.Spec = spec
	} else if next := sizes(spec); next != sizes(vm.Spec) {
		vm.Next = &next
	}
	return vm, nil
}

func setFuture(spec banger.Spec, u banger.Update) banger.Spec {
	if u.Restart != nil {
		spec.Restart = *u.Restart
	}
	if u.TTL != nil {
		spec.TTL = *u.TTL
	}
	if u.Idle != nil {
		spec.Idle = *u.Idle
	}
	return spec
}

func resized(spec banger.Spec, u banger.Update) banger.Spec {
	if u.CPUs != nil {
		spec.CPUs, spec.Confine.CPU = *u.CPUs, u.CPU
	}
	if u.Memory != nil {
		spec.Memory = *u.Memory
	}
	return spec
}

func sizes(spec banger.Spec) banger.Sizes {
	return banger.Sizes{CPUs: spec.CPUs, CPU: spec.Confine.CPU, Memory: spec.Memory}
}

// AtNextBoot returns the spec with which a VM boots the next time.
func AtNextBoot(vm banger.VM) banger.Spec {
	spec := vm.Spec
	if n := vm.Next; n != nil {
		spec.CPUs, spec.Confine.CPU, spec.Memory = n.CPUs, n.CPU, n.Memory
	}
	return spec
}
