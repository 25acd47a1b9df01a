package launch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/network/bridge"
	"banger/internal/plan"
	"banger/internal/secret"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// Boot starts the VM from a template, or boots it. Emulated boots first wait for a free place. After a guest panic it
// boots once more, because emulators have rare bugs that a second boot does not meet. If the guest has booted but its
// init is late, late says so in a sentence.
func (b Start) Boot(ctx context.Context) (late string, err error) {
	if !b.Plans.VMMs.KVM {
		select {
		case b.places <- struct{}{}:
			defer func() { <-b.places }()
		case <-ctx.Done():
			return "", ctx.Err()
		}
		b.Watch.Lap("queue")
	}
	text := "booting " + b.VM.Name
	if !b.Plans.VMMs.KVM {
		text += " (emulated: slow, and no isolation boundary)"
	}
	b.Emit(banger.Event{Stage: "boot", Text: text})
	if b.Warm != nil {
		defer b.Warm.Starting()()
	}
	console := shim.ConsoleEnd(b.Plans.Dirs.VM(b.VM.ID))
	err = b.once(ctx)
	if errors.Is(err, errPanic) && ctx.Err() == nil {
		b.Emit(banger.Event{Stage: "boot", Text: "the guest kernel panicked, booting once more"})
		console = shim.ConsoleEnd(b.Plans.Dirs.VM(b.VM.ID))
		err = b.once(ctx)
	}
	if err == nil {
		late, err = b.awaitInit(ctx)
	}
	var failed *bootError
	if errors.As(err, &failed) {
		err = failed.explain(b.VM, shim.LastWords(b.Plans.Dirs.VM(b.VM.ID), console))
	}
	return late, err
}

// once starts the shim and waits until the agent has configured the guest.
func (b Start) once(ctx context.Context) error {
	initramfs, name, err := b.Plans.Initramfs(b.VM)
	if err != nil {
		return err
	}
	b.Machine.Update(func(vm *banger.VM) { vm.Initramfs, vm.Template = name, "" })
	if err := vmm.RemoveSnapshot(b.Plans.Dirs.VM(b.VM.ID)); err != nil { // the disk will fit it no more
		return err
	}
	p, err := b.Plans.Make(b.Life, b.VM, b.UID, initramfs)
	if err != nil {
		return err
	}
	done, err := b.fromTemplate(ctx, p)
	if done || err != nil {
		return err
	}
	if err := b.first(ctx, p); err != nil {
		return err
	}
	b.Watch.Lap("boot")
	if b.Warm != nil {
		b.Warm.Want(p, b.VM, b.Fresh)
	}
	return nil
}

// first starts a guest that was never configured, and configures it.
func (b Start) first(ctx context.Context, p plan.Plan) error {
	key, err := b.launch(ctx, p)
	if err != nil {
		return err
	}
	config, err := b.guestConfig(ctx, key)
	if err != nil {
		return err
	}
	config.Seed = newSeed()
	if b.Fresh || b.Renew { // later the file belongs to the guest's users
		config.MachineID = machineID(key)
	}
	if p.Shim.VM.Shared && config.Network != nil { // the template's NIC had another address
		config.Network.MAC = p.Shim.Network.MAC
	}
	err = b.unlessEnded(ctx, bootTimeout, func(ctx context.Context) error {
		_, err := b.Agent.Configure(ctx, config)
		return err
	})
	if err == nil {
		b.syncClock(ctx)
	}
	return err
}

// launch starts the shim and its VM. It returns the VM's host key, read before the directory is given to the VM's user.
func (b Start) launch(ctx context.Context, p plan.Plan) (hostKey string, err error) {
	if err := b.Plans.Dirs.Make(b.VM.ID); err != nil {
		return "", err
	}
	if b.VM.Base != "" {
		if err := b.Plans.Layers.Check(b.VM); err != nil {
			return "", err
		}
	}
	hostKey, public, err := b.HostKey(b.VM.ID)
	if err != nil {
		return "", err
	}
	b.Machine.Update(func(vm *banger.VM) { vm.VMM, vm.SSHHostKey = p.VMM, public })
	if err := b.startShim(ctx, p.Shim, p.Identity); err != nil {
		return "", err
	}
	b.Watch.Lap("vmm")
	b.Machine.Up()
	return hostKey, nil
}

// awaitInit waits until the image's init runs, if the VM boots it, and until systemd accepts requests, if it is
// systemd. It does not wait for systemd's units. A late init is no failure, because the agent can run commands
// anyway.
func (b Start) awaitInit(ctx context.Context) (late string, err error) {
	if b.VM.Spec.Init != banger.InitImage {
		return "", nil
	}
	limit := cmp.Or(b.InitTime, initTime)
	err = b.unlessEnded(ctx, limit, b.Agent.Ready)
	b.Watch.Lap("init")
	if errors.Is(err, errLate) {
		late = fmt.Sprintf("its init did not answer within %s", limit)
		b.Emit(banger.Event{Stage: "boot", Text: fmt.Sprintf("warning: the init of %s does not answer within %s, "+
			"so that systemctl may fail; see: banger logs --console %s", b.VM.Name, limit, b.VM.Name)})
		return late, nil
	}
	return "", err
}

// unlessEnded makes a request to the agent and waits for at most limit. The end of the VMM ends the wait.
func (b Start) unlessEnded(ctx context.Context, limit time.Duration, request func(context.Context) error) error {
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answered := make(chan error, 1)
	go func() { answered <- request(within) }() // ends with within at the latest; the channel has room
	var err error
	select {
	case st := <-b.Machine.Ended():
		return b.endedEarly(st)
	case err = <-answered:
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case within.Err() != nil:
		return &bootError{fmt.Errorf("%w (%s)", errLate, limit)}
	}
	select { // the VMM's end explains more than a broken connection
	case st := <-b.Machine.Ended():
		return b.endedEarly(st)
	case <-time.After(time.Second):
		return &bootError{err}
	}
}

// endedEarly returns the error of a boot during which the VMM has ended.
func (b Start) endedEarly(st shim.Status) error {
	b.Machine.Down()
	if st.Exit.Panic {
		return &bootError{errPanic}
	}
	return &bootError{errors.New(st.Exit.Reason)}
}

// syncClock sets the guest's clock from the host's. Configure has already set the clock, but without the time that
// its request took. If syncClock fails, the clock stays as it is, and the shim tries again each minute.
func (b Start) syncClock(ctx context.Context) {
	if err := b.Shim.SyncClock(ctx); err != nil && b.Life.Err() == nil {
		b.Log.Warn("the guest's clock was not set again after the boot", "err", err)
	}
}

// startShim opens the VM's ports and hands them to a new shim.
func (b Start) startShim(ctx context.Context, spec shim.Spec, id shim.Identity) error {
	wanted := b.VM.Spec.Forwards
	if spec.Network == nil {
		wanted = nil // they wait until the VM has a network again
	}
	ports, err := b.Sockets, error(nil)
	if ports == nil {
		if ports, err = b.Networks.Listen(wanted); err != nil {
			return err
		}
		defer ports.Close()
	}
	files := ports.Files
	group, limits, err := b.Plans.Groups.Join(b.VM.ID, b.VM.Spec)
	if err != nil {
		return err
	}
	defer group.Close()
	id.Group = group
	b.Machine.Update(func(vm *banger.VM) { vm.Limits = limits })
	if banger.OnBridge(b.VM.Spec.Network) {
		assign := func(address string) { b.Machine.Update(func(vm *banger.VM) { vm.Address = address }) }
		if spec.Network.Address, err = b.Networks.Join(ctx, b.VM, assign); err != nil {
			return err
		}
		if spec.Network.Tap != "" { // the VMM's user owns the tap
			spec.Network.Tap = bridge.Port{ID: b.VM.ID}.Tap()
		} else {
			tap, err := b.Networks.Bridge.OpenTap(b.VM.ID)
			if err != nil {
				return err
			}
			defer tap.Close()
			files = append([]*os.File{tap}, files...)
		}
	}
	address := ""
	if spec.Network != nil {
		spec.Network.Forwards, address = ports.Forwards, cmp.Or(spec.Network.Address, spec.Network.Loopback)
		spec.Network.Own, spec.Network.Listeners = ports.Own, ports.Listeners
	}
	if err := b.Shim.Start(ctx, b.ShimArgv, spec, id, files...); err != nil {
		if spec.VM.Restore != "" { // it says why the snapshot does not fit
			return err
		}
		return banger.Errorf(banger.CodeUnavailable, "cannot start the VMM: %w", err).WithHint("see: banger doctor")
	}
	b.Machine.Update(func(vm *banger.VM) { vm.Address, vm.Forwards = address, ports.Forwards })
	return nil
}

// guestConfig returns the agent's configuration of a VM that already has its address.
func (b Start) guestConfig(ctx context.Context, hostKey string) (guest.Config, error) {
	vm := b.Machine.Snapshot()
	net, err := b.Networks.Guest(ctx, vm)
	c := b.Plans.Guest(vm, net, hostKey)
	if err == nil && len(vm.Secrets) > 0 {
		c.Secrets, err = secret.Files{Dir: b.Plans.Dirs.Secrets(vm.ID)}.Read(vm.Secrets)
		c.Dirs = append(c.Dirs, banger.SecretsDir) // made before the root becomes read-only
	}
	return c, err
}

// bootError is a failure of a boot that the guest has caused.
type bootError struct{ cause error }

func (e *bootError) Error() string { return e.cause.Error() }
func (e *bootError) Unwrap() error { return e.cause }

// explain returns the error of a VM's boot. said is the end of its console output.
func (e *bootError) explain(vm banger.VM, said string) error {
	if said != "" {
		said = "; its console ends with: " + said
	}
	err := banger.Errorf(banger.CodeGuest, "VM %s did not boot: %w%s", vm.Name, e.cause, said)
	if vm.Spec.AutoRemove { // the VM is removed, with its console log
		return err
	}
	return err.WithHint("see: banger logs --console %s", vm.Name)
}

// errLate means that the agent did not answer in time.
var errLate = errors.New("the agent did not answer in time")
