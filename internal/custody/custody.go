// Package custody gives VMs their secrets, takes them back and says which there are, whether the VMs run or not. It
// must not know where a client has a value from, nor what a guest does with it.
package custody

import (
	"context"
	"slices"

	"banger"
	"banger/internal/guest"
	"banger/internal/secret"
	"banger/internal/vmdir"
)

// VMs are the VMs of a daemon.
type VMs interface {
	Get(ref string) (banger.VM, error)
	// Wake lets a suspended VM go on, and returns it.
	Wake(ctx context.Context, id string) (banger.VM, error)
	// Alter runs f while nothing else changes the VM. change changes the row of the VM and then the VM, or neither. The
	// end of ctx does not interrupt f.
	Alter(ctx context.Context, ref string, f func(ctx context.Context, vm banger.VM, change Change) error) error
	// Agent returns a client of a VM's agent.
	Agent(id string) guest.Client
}

// Change stores a change of a VM.
type Change func(ctx context.Context, change func(*banger.VM)) error

// Custody is the secrets of the VMs of one daemon. Its methods may be called at the same time.
type Custody struct {
	VMs  VMs
	Dirs vmdir.Dirs
}

func (c Custody) files(id string) secret.Files { return secret.Files{Dir: c.Dirs.Secrets(id)} }

// List returns the secrets of a VM by name, without their values.
func (c Custody) List(ref string) ([]banger.VMSecret, error) {
	vm, err := c.VMs.Get(ref)
	if err != nil {
		return nil, err
	}
	list := []banger.VMSecret{}
	for _, name := range vm.Secrets {
		list = append(list, banger.VMSecret{Name: name, Given: c.files(vm.ID).Given(name)})
	}
	return list, nil
}

// Set gives a VM a secret, in place of an earlier one of that name. A VM that runs has it when Set returns. A VM at
// rest has it at its next start. If the guest does not take it, all is as before.
func (c Custody) Set(ctx context.Context, ref, name string, value []byte) error {
	if err := secret.Check(map[string][]byte{name: value}); err != nil {
		return err
	}
	return c.alter(ctx, ref, "give a secret to", func(ctx context.Context, vm banger.VM, change Change) error {
		files := c.files(vm.ID)
		values, err := files.Read(vm.Secrets)
		if err != nil {
			return err
		}
		before, had := values[name]
		values[name] = value
		if err := secret.Check(values); err != nil {
			return err
		}
		names := secret.Join(vm.Secrets, []string{name})
		if err := banger.CheckSecrets(names...); err != nil { // with those that the host has lost
			return err
		}
		// The row comes first, so that no guest has a secret of which its host does not know.
		if err := change(ctx, func(vm *banger.VM) { vm.Secrets = names }); err != nil {
			return err
		}
		if err = files.Write(name, value); err == nil && vm.State == banger.StateRunning {
			err = c.VMs.Agent(vm.ID).SetSecrets(ctx, guest.SecretsRequest{Set: map[string][]byte{name: value}})
		}
		if err == nil {
			return nil
		}
		if had {
			files.Write(name, before) // the error says what failed
		} else if files.Remove(name) == nil && banger.CodeOf(err) != banger.CodeTimeout { // a late guest may have it
			change(ctx, func(now *banger.VM) { now.Secrets = vm.Secrets })
		}
		return err
	})
}

// Remove takes a secret from a VM. Commands that run keep what they have read.
func (c Custody) Remove(ctx context.Context, ref, name string) error {
	return c.alter(ctx, ref, "take a secret from", func(ctx context.Context, vm banger.VM, change Change) error {
		at := slices.Index(vm.Secrets, name)
		if at < 0 {
			return banger.Errorf(banger.CodeNotFound, "VM %s has no secret %.80q", vm.Name, name).
				WithHint("see: banger secret ls %s", vm.Name)
		}
		if vm.State == banger.StateRunning {
			if err := c.VMs.Agent(vm.ID).SetSecrets(ctx, guest.SecretsRequest{Remove: []string{name}}); err != nil {
				return err
			}
		}
		if err := c.files(vm.ID).Remove(name); err != nil {
			return err
		}
		return change(ctx, func(now *banger.VM) { now.Secrets = slices.Delete(slices.Clone(vm.Secrets), at, at+1) })
	})
}

// alter runs f in the owner of a VM that runs or is at rest. It wakes one that is suspended. operation completes the
// sentence "cannot ... VM".
func (c Custody) alter(ctx context.Context, ref, operation string,
	f func(ctx context.Context, vm banger.VM, change Change) error) error {
	vm, err := c.VMs.Get(ref)
	if err == nil && vm.Wakes() {
		vm, err = c.VMs.Wake(ctx, vm.ID)
	}
	if err != nil {
		return err
	}
	return c.VMs.Alter(ctx, vm.ID, func(ctx context.Context, vm banger.VM, change Change) error {
		if vm.State != banger.StateRunning && !vm.State.AtRest() {
			return vm.NotRunning(operation)
		}
		return f(ctx, vm, change)
	})
}
