package launch

import (
	"context"
	"errors"

	"banger"
	"banger/internal/guest"
	"banger/internal/vmm"
)

// Restore starts the VMM with the snapshot in the VM's directory, and the initramfs that the VM had. It returns the
// VM's host key for Welcome.
func (b Start) Restore(ctx context.Context) (hostKey string, err error) {
	p, err := b.Plans.Make(b.Life, b.VM, b.UID, b.Plans.Kernels.InitrdPath(b.VM.Kernel, b.VM.Initramfs))
	if err != nil {
		return "", err
	}
	p.Shim.VM.Restore = b.Plans.Dirs.VM(b.VM.ID)
	return b.launch(ctx, p)
}

// Fork starts the VM from the snapshot id of another one, and gives it an identity of its own. Its programs go on when
// it has that. late is that of Boot: systemd starts again in a fork. The caller closes saved.
func (b Start) Fork(ctx context.Context, id string, saved *vmm.Saved) (late string, err error) {
	p, err := b.Plans.Make(b.Life, b.VM, b.UID, b.Plans.Kernels.InitrdPath(b.VM.Kernel, b.VM.Initramfs))
	if err != nil {
		return "", err
	}
	p.Shim.VM.Restore, p.Shim.VM.Shared, p.Shim.VM.From, p.Shim.Fork = id, true, saved, true
	key, err := b.launch(ctx, p)
	if err != nil {
		return "", err
	}
	err = b.welcome(ctx, key, func(c *guest.Config) {
		c.MachineID = machineID(key)
		if c.Network != nil {
			c.Network.MAC = p.Shim.Network.MAC
		}
	})
	if err != nil {
		return "", err
	}
	return b.awaitInit(ctx)
}

// Welcome makes the clock, the randomness and the network of a restored guest right. Only then do its commands go on.
func (b Start) Welcome(ctx context.Context, hostKey string) error {
	return b.welcome(ctx, hostKey, func(*guest.Config) {})
}

// welcome is Welcome with a change of the guest's configuration.
func (b Start) welcome(ctx context.Context, hostKey string, change func(*guest.Config)) error {
	config, err := b.guestConfig(ctx, hostKey)
	if err != nil {
		return err
	}
	config.ResetConnections = true
	config.Seed = newSeed()
	change(&config)
	err = b.unlessEnded(ctx, bootTimeout, func(ctx context.Context) error {
		_, err := b.Agent.Restored(ctx, config)
		return err
	})
	var failed *bootError
	if errors.As(err, &failed) {
		return banger.Errorf(banger.CodeGuest, "VM %s did not resume: %w", b.VM.Name, failed.cause)
	}
	if err != nil {
		return err
	}
	b.syncClock(ctx)
	b.Watch.Lap("resume")
	return nil
}
