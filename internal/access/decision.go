package access

import (
	"context"
	"io"
	"strings"
	"time"

	"banger"
	"banger/internal/shim"
)

// Decisions shows what the policies of VMs have decided, and lets a rule count for a time.
type Decisions struct{ Guests Guests }

// Decisions returns the access to what policies decide.
func (g Guests) Decisions() Decisions { return Decisions{g} }

// withNetwork returns the VM that ref names if it has a network.
func (d Decisions) withNetwork(ref string) (banger.VM, error) {
	vm, err := d.Guests.VMs.Get(ref)
	if err == nil && vm.Spec.Network == banger.NetworkNone {
		err = banger.Errorf(banger.CodeConflict, "VM %s has no network", vm.Name).
			WithHint("create it without --network none")
	}
	return vm, err
}

// Write writes what a VM's policy has refused since the VM's last start and, with all, also the flows that it has
// allowed, as lines of JSON in order of time: the last tail ones (all that are kept if tail is negative) and, with
// follow, new ones until the VM or ctx ends.
func (d Decisions) Write(ctx context.Context, ref string, all bool, tail int, follow bool, w io.Writer) error {
	vm, err := d.withNetwork(ref)
	if err != nil {
		return err
	}
	client := d.Guests.VMs.Shim(vm.ID)
	if !vm.State.AtRest() {
		if err := client.Decisions(ctx, all, tail, follow, w); err == nil || ctx.Err() != nil {
			return nil
		}
	}
	return shim.ReadDecisions(client.Dir, all, tail, w)
}

// maxOnce is the longest time for which a rule can be allowed, in seconds.
const maxOnce = 3600

// AllowOnce lets a rule count in front of the policy of a running VM for so many seconds. The rule is not part of the
// VM, and ends with the VM's present run. Flows that it has allowed go on after that.
func (d Decisions) AllowOnce(ctx context.Context, ref string, r banger.Rule, seconds int) error {
	if err := r.Check(); err != nil {
		return banger.Errorf(banger.CodeInvalid, "rule %q: %w", r, err)
	}
	if r.Action != banger.Allow {
		return banger.Errorf(banger.CodeInvalid, "rule %q does not allow anything, but only such rules count for a time", r).
			WithHint("for example: allow *.debian.org tcp:80,443")
	}
	if seconds < 1 || seconds > maxOnce {
		return banger.Errorf(banger.CodeInvalid, "a rule cannot be allowed for %d seconds, but for 1 to %d", seconds,
			maxOnce).
			WithHint("write it into the policy if it is to stay")
	}
	vm, err := d.withNetwork(ref)
	switch {
	case err != nil:
		return err
	case banger.OnBridge(vm.Spec.Network):
		return banger.Errorf(banger.CodeConflict, "VM %s is on the bridge network %s, where no rule counts for a time",
			vm.Name, vm.Spec.Network).WithHint("write it into the policy: banger policy allow %s '%s'", vm.Name,
			strings.TrimPrefix(r.String(), banger.Allow+" "))
	case !vm.State.Lives():
		return vm.NotRunning("allow something to")
	}
	once := shim.Once{Rule: r, For: time.Duration(seconds) * time.Second}
	if err := d.Guests.VMs.Shim(vm.ID).AllowOnce(ctx, once); err != nil {
		return banger.Errorf(banger.CodeUnavailable, "cannot allow something to VM %s: %w", vm.Name, err)
	}
	return nil
}
